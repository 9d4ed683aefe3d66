package import ReelKV

/// The keys that the encrypted tenant of a store may have. Whoever comes to the store does not know which it has by then, and tries them.
package enum ModelKeys {
    package static let tenant = "other"
    package static let count = 3

    package static func key(_ number: Int) throws -> EncryptionKey {
        try EncryptionKey(hex: String(repeating: "\(number + 1)e", count: EncryptionKey.byteCount))
    }

    package static func isEncrypted(_ store: Store) throws -> Bool {
        try store.tenantInfos().contains { $0.name == tenant && $0.isEncrypted }
    }

    /// Unlocks all encrypted tenants.
    ///
    /// - Returns: how many of the keys open the one whose key changes; nil where it is not encrypted.
    package static func unlock(_ store: Store) throws -> Int? {
        for info in try store.tenantInfos() where info.isEncrypted && info.name != tenant {
            do { try store.unlock(tenant: info.name, with: try key(0)) } catch let error as StoreError
                where error.code == .invalidArgument
            {
                // another process has removed it, and made one of its name that is not encrypted
            }
        }
        guard try isEncrypted(store) else { return nil }
        return try (0..<count).reduce(0) { opened, number in
            do {
                try store.unlock(tenant: tenant, with: try key(number))
                return opened + 1
            } catch let error as StoreError where error.code == .wrongKey { return opened }
        }
    }
}
