import ReelKV

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A key that the command was given, of a tenant that it names or of those that it fits.
struct GivenKey {
    var tenant: String?
    var key: EncryptionKey
    /// Whether it was named for this command, and not for all of them in the environment.
    var isMeant: Bool

    /// The keys of `--key-file`, or else of the environment.
    static func all(files: [String]) throws -> [GivenKey] {
        if !files.isEmpty { return try files.map { try GivenKey(argument: $0, isMeant: true) } }
        if let file = environment("REELKV_KEY_FILE") { return [try GivenKey(argument: file, isMeant: false)] }
        guard let digits = environment("REELKV_KEY") else { return [] }
        do { return [GivenKey(tenant: nil, key: try EncryptionKey(hex: digits), isMeant: false)] } catch {
            throw Failure("REELKV_KEY in the environment: \(error)")
        }
    }

    /// The keys of tenants of a store that does not open, by name. A key that names no tenant is taken for the default tenant's.
    static func byTenant(files: [String], in path: String) throws -> [String: EncryptionKey] {
        let keys = try all(files: files).map { ($0.tenant ?? Store.defaultTenant, $0.key) }
        return Dictionary(keys) { _, last in last }
    }

    private init(tenant: String?, key: EncryptionKey, isMeant: Bool) {
        self.tenant = tenant
        self.key = key
        self.isMeant = isMeant
    }

    private init(argument: String, isMeant: Bool) throws {
        // a file whose own name has such a sign is named as ./NAME
        let sign = argument.firstIndex(of: "=").flatMap { argument[..<$0].contains("/") ? nil : $0 }
        let file = sign.map { String(argument[argument.index(after: $0)...]) } ?? argument
        self.init(
            tenant: sign.map { String(argument[..<$0]) }, key: try EncryptionKey(contentsOf: file), isMeant: isMeant)
    }

    private static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    func unlock(_ store: Store) throws {
        if let tenant { return try store.unlock(tenant: tenant, with: key) }
        var isFitting = false
        for tenant in try store.tenantInfos() where tenant.isEncrypted {
            do {
                try store.unlock(tenant: tenant.name, with: key)
                isFitting = true
            } catch let error as StoreError where error.code == .wrongKey {
                continue
            }
        }
        guard isFitting || !isMeant else {
            throw Failure("the key that was given is that of no encrypted tenant of this store: `reelkv tenant ls` lists them")
        }
    }
}
