import KVCodec
import LMDB
import Locking

/// The keys that this process has been given, by tenant. Shared by all that have the store open in it.
final class KeyRing: Sendable {
    private struct State {
        var unlocked: [UInt32: TenantKeys] = [:]
        /// Keys of tenants that are not there yet.
        var awaited: [String: EncryptionKey] = [:]
    }

    private let state = Mutex(State())

    /// The keys that were given for a tenant; it may have another by now.
    func keys(of tenant: UInt32) -> TenantKeys? { state.withLock { $0.unlocked[tenant] } }

    /// The keys of a tenant; nil where it is not encrypted, its key was not given, or it has another by now.
    func keys(of tenant: StoredTenant) -> TenantKeys? {
        guard let keys = keys(of: tenant.id), keys.current.number >= tenant.record.keyEpoch else { return nil }
        return keys
    }

    var unlockedTenants: [UInt32] { state.withLock { $0.unlocked.keys.sorted() } }

    func add(_ keys: TenantKeys) {
        state.withLock {
            $0.unlocked[keys.tenant] = keys
            $0.awaited[keys.name] = nil
        }
    }

    /// Keeps a key for when the tenant is made.
    func await(_ key: EncryptionKey, tenant: String) { state.withLock { $0.awaited[tenant] = key } }

    func awaitedKey(ofTenant name: String) -> EncryptionKey? { state.withLock { $0.awaited[name] } }
}

// MARK: - Sealing and opening what the index holds

extension Index {
    static func noKey(_ tenant: String) -> StoreError {
        StoreError(.keyRequired, "\(tenant) is encrypted: give its key")
    }

    static func newKey(_ name: String) -> StoreError {
        StoreError(.keyRequired, "tenant '\(name)' was given another key meanwhile: unlock it with that")
    }

    /// Why a tenant cannot be opened.
    func missingKey(of tenant: StoredTenant) -> StoreError {
        keyRing.keys(of: tenant.id) == nil ? Self.noKey("tenant '\(tenant.name)'") : Self.newKey(tenant.name)
    }

    /// The keys to seal with; nil where the tenant is not encrypted.
    ///
    /// - Throws: `StoreError.keyRequired` when the tenant has another key by now: what the old one seals might not be read any more.
    func sealingKeys(
        of tenant: UInt32, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> TenantKeys? {
        guard let keys = keyRing.keys(of: tenant) else { return nil }
        guard let record = try tenantRecord(named: keys.name, in: transaction), record.tenantId == tenant,
            record.keyEpoch == keys.current.number
        else { throw Self.newKey(keys.name) }
        return keys
    }

    /// Whether the data key that something was sealed with is still in effect, so that it may be stored: an earlier one may have been dropped
    /// by now.
    ///
    /// - Parameter epoch: the data key's number; 0 for what is not sealed.
    func isSealedInEffect(
        _ epoch: UInt32, of tenant: UInt32, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Bool {
        do { return try sealingKeys(of: tenant, in: transaction)?.current.number ?? 0 == epoch } catch let error as StoreError
            where error.code == .keyRequired
        { return false }
    }

    /// Opens a sealed value.
    ///
    /// - Throws: `StoreError.keyRequired` without the tenant's key, `damaged` where it was not sealed for this place.
    func open(_ sealed: UnsafeRawBufferPointer, of tenant: UInt32, place: [UInt8]) throws -> [UInt8] {
        guard let keys = keyRing.keys(of: tenant) else { throw Self.noKey("tenant \(tenant)") }
        let damaged = StoreError(.damaged, "a sealed record of tenant '\(keys.name)' is damaged; run `reelkv verify`")
        guard let header = SealedValue.header(sealed)?.header else { throw damaged }
        guard let epoch = keys.epoch(header.keyEpoch) else { throw Self.newKey(keys.name) }
        guard let plain = SealedValue.open(sealed, place: place, with: epoch.values) else { throw damaged }
        return plain
    }

    /// The canonical tokens of a node.
    ///
    /// - Throws: `StoreError.keyRequired` for a sealed node of a tenant whose key was not given.
    func tokens(of node: NodeView) throws -> [UInt8] {
        guard node.record.isSealed else { return Array(node.content) }
        return try open(node.content, of: node.record.tenantId, place: Node.place(node.record.hash))
    }

    func tokens(of node: Node) throws -> [UInt8] {
        guard node.record.isSealed else { return node.content }
        return try node.content.withUnsafeBytes {
            try open($0, of: node.record.tenantId, place: Node.place(node.record.hash))
        }
    }

    /// Whether a tenant's sealed values can be opened; true for a tenant that is not encrypted.
    func canOpen(_ record: NodeRecord) -> Bool { !record.isSealed || keyRing.keys(of: record.tenantId) != nil }

    /// The engine state kept after a node.
    func state(
        after node: Digest, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [UInt8]? {
        guard let value = try states.get(node, in: transaction) else { return nil }
        let record = try nodes.withValue(node, in: transaction) { try NodeView($0).record }
        guard let record, record.isSealed else { return value }
        return try value.withUnsafeBytes { try open($0, of: record.tenantId, place: Self.statePlace(node)) }
    }

    func putState(_ state: [UInt8], after node: Digest, in transaction: borrowing WriteTransaction) throws {
        let record = try nodes.withValue(node, in: transaction) { try NodeView($0).record }
        guard let record, record.isSealed else { return try states.put(node, state, in: transaction) }
        guard let keys = try sealingKeys(of: record.tenantId, in: transaction) else {
            throw Self.noKey("tenant \(record.tenantId)")
        }
        let sealed = SealedValue.seal(
            state, epoch: keys.current.number, place: Self.statePlace(node), with: keys.current.values)
        try states.put(node, sealed, in: transaction)
    }

    static func statePlace(_ node: Digest) -> [UInt8] { [UInt8(ascii: "E")] + node.bytes }
}

extension Node {
    static func place(_ hash: Digest) -> [UInt8] { [UInt8(ascii: "N")] + hash.bytes }

    /// Seals the tokens of a node that is to be stored under `hash`, if its tenant is encrypted.
    mutating func sealIfEncrypted(with keys: TenantKeys?, hash: Digest) throws {
        guard let keys else { return }
        let tokens = try TokenSequence(canonical: content)
        let order = ChildKey.order(of: tokens, 0..<tokens.count, base: record.base, keys: keys)
        content = SealedValue.seal(
            content, order: order, epoch: keys.current.number, place: Self.place(hash), with: keys.current.values)
        record.isSealed = true
        record.sealsMedia = !tokens.media.isEmpty
        record.hash = hash
    }
}

extension StoredTenant {
    /// What of it never changes: not its quota, nor what another key changes.
    var fixed: StoredTenant {
        var fixed = self
        fixed.record.quotaBytes = 0
        fixed.record.keyEpoch = 0
        fixed.record.secretBytes = 0
        fixed.secret = []
        return fixed
    }
}

extension NodeRecord {
    private static let sealedFlag: UInt16 = 1
    private static let mediaFlag: UInt16 = 2

    /// Whether there are placeholders of media among the tokens that are sealed.
    var sealsMedia: Bool {
        get { flags & Self.mediaFlag != 0 }
        set { flags = newValue ? flags | Self.mediaFlag : flags & ~Self.mediaFlag }
    }

    var isSealed: Bool {
        get { flags & Self.sealedFlag != 0 }
        set { flags = newValue ? flags | Self.sealedFlag : flags & ~Self.sealedFlag }
    }
}
