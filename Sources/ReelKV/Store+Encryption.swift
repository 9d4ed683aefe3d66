import KVCodec
import LMDB

/// A tenant, and whether it is encrypted.
public struct TenantInfo: Hashable, Sendable {
    public var name: String
    public var isEncrypted: Bool
    /// Whether what it holds can be read: it is not encrypted, or this process was given its key.
    public var isUnlocked: Bool
    /// Pages and records may still be sealed with an earlier key: a compaction with ``CompactionOptions/reseals`` ends that. Known of
    /// unlocked tenants only.
    public var hasEarlierKeys: Bool
    /// Which of its keys is in effect: 1 for the first, one more each time that it gets another; 0 where it is not encrypted.
    public var keyGeneration: Int
    /// Page images that are stored for it.
    public var livePages: Int
    /// Bytes of them.
    public var liveBytes: Int
    /// Unix time.
    public var createdSeconds: Int64
}

// MARK: - Encrypted tenants

extension Store {
    /// All tenants, by name.
    public func tenantInfos() throws -> [TenantInfo] {
        try read { transaction in
            var infos: [TenantInfo] = []
            for tenant in try index.allTenants(in: transaction) {
                let keys = index.keyRing.keys(of: tenant)
                let account = try index.account(of: tenant.id, in: transaction)
                infos.append(
                    TenantInfo(
                        name: tenant.name, isEncrypted: tenant.isEncrypted, isUnlocked: !tenant.isEncrypted || keys != nil,
                        hasEarlierKeys: keys?.epochs.count ?? 1 > 1, keyGeneration: Int(tenant.record.keyEpoch),
                        livePages: Int(clamping: account.livePages), liveBytes: Int(clamping: account.liveBytes),
                        createdSeconds: tenant.record.createdSeconds))
            }
            return infos
        }
    }

    /// Makes a tenant that holds nothing yet.
    ///
    /// - Parameter key: to have all that tells of its tokens and tensors encrypted. Whether a tenant is encrypted never changes.
    /// - Throws: `StoreError` with the codes `alreadyExists`, `invalidArgument`, `readOnly`.
    public func createTenant(named name: String, key: EncryptionKey? = nil) throws {
        try Names.check(name, what: "tenant")
        let keys = try write { transaction in
            guard try index.tenant(named: name, in: transaction) == nil else {
                throw StoreError(.alreadyExists, "a tenant '\(name)' exists already")
            }
            return try index.addTenant(named: name, salt: nil, key: key, in: transaction) {
                try saveIdentity(in: transaction)
            }.keys
        }
        if let keys { index.keyRing.add(keys) }
    }

    /// Gives this process the key of an encrypted tenant. It counts for all that have the store open in this process, until none has. A
    /// tenant that is not there yet is made encrypted with it when something is first stored.
    ///
    /// - Throws: `StoreError` with the codes `wrongKey`, `invalidArgument` for a tenant that is not encrypted.
    public func unlock(tenant name: String, with key: EncryptionKey) throws {
        try Names.check(name, what: "tenant")
        guard let tenant = try storedTenant(named: name) else {
            index.keyRing.await(key, tenant: name)
            return
        }
        index.keyRing.add(try tenant.keys(opening: key))
    }

    /// Gives an encrypted tenant another key. From then on only that opens it; what is stored under names, tokens and engine state is sealed anew before
    /// this returns, page images as compaction moves them: see ``CompactionOptions/reseals``. Until then the earlier data keys are kept under
    /// the new key. Where it is interrupted, the new key is in effect, and a compaction goes on.
    ///
    /// To processes that have the old key the tenant is locked from then on, until they unlock it with the new one.
    ///
    /// - Throws: `StoreError` with the codes `notFound`, `keyRequired` while the tenant is locked, `invalidArgument` for one that is not
    ///   encrypted, `readOnly`, `noSpace`.
    public func rekey(tenant name: String, to key: EncryptionKey) throws {
        let keys = try write { transaction in
            guard var tenant = try index.tenant(named: name, in: transaction) else { throw Self.noTenant(name) }
            guard tenant.isEncrypted else { throw tenant.notEncrypted }
            guard let known = try index.sealingKeys(of: tenant.id, in: transaction) else { throw Index.noKey("tenant '\(name)'") }
            let keys = known.withNewEpoch(owner: key)
            tenant.setSecret(of: keys)
            try index.putTenant(tenant, in: transaction)
            try saveIdentity(in: transaction)
            return keys
        }
        index.keyRing.add(keys)
        try resealValues(of: keys)
    }

    private static var resealBatch: Int { 512 }

    /// Seals what the index holds of a tenant with the key in effect.
    private func resealValues(of keys: TenantKeys) throws {
        var position: UInt64 = 0
        while true {
            let (stale, last) = try read {
                try index.sealedNodes(of: keys, after: position, countMax: Self.resealBatch, in: $0)
            }
            if !stale.isEmpty {
                try write { transaction in
                    for hash in stale { try index.reseal(hash, with: keys, in: transaction) }
                }
            }
            guard let last else { break }
            position = last
        }
        try write { try index.resealHeads(of: keys, in: $0) }
    }

    /// Drops the data keys that nothing is sealed with any more, of the tenants whose keys were given.
    func forgetEarlierKeys() throws {
        for tenant in try read({ try index.allTenants(in: $0) }) {
            guard let keys = index.keyRing.keys(of: tenant), keys.epochs.count > 1 else { continue }
            // an interrupted rekeying goes on here
            try resealValues(of: keys)
            guard try read({ try index.isSealedWithCurrent(keys, in: $0) }) else { continue }
            let current = try write { transaction -> TenantKeys? in
                guard var tenant = try index.tenant(named: keys.name, in: transaction), tenant.id == keys.tenant,
                    try index.sealingKeys(of: keys.tenant, in: transaction) != nil,
                    try index.isSealedWithCurrent(keys, in: transaction)
                else { return nil }
                let current = keys.withCurrentOnly()
                tenant.setSecret(of: current)
                try index.putTenant(tenant, in: transaction)
                try saveIdentity(in: transaction)
                return current
            }
            if let current { index.keyRing.add(current) }
        }
    }

    /// - Throws: `StoreError.keyRequired` when there is an encrypted tenant whose key, as it is now, was not given.
    func checkUnlocked() throws {
        try read { try checkUnlocked(in: $0) }
    }

    func checkUnlocked(in transaction: borrowing some Transaction & ~Copyable) throws {
        let tenants = try? index.allTenants(in: transaction)
        for tenant in tenants ?? [] where index.salt(of: tenant) == nil { throw index.missingKey(of: tenant) }
    }
}

extension StoredTenant {
    /// - Throws: `StoreError` with the codes `wrongKey`, `invalidArgument`.
    func keys(opening key: EncryptionKey) throws -> TenantKeys {
        guard isEncrypted else { throw notEncrypted }
        guard let keys = TenantKeys(opening: secret, tenant: id, name: name, with: key) else {
            throw StoreError(.wrongKey, "this is not the key of tenant '\(name)'")
        }
        return keys
    }

    var notEncrypted: StoreError {
        StoreError(
            .invalidArgument,
            "tenant '\(name)' is not encrypted, and a tenant that holds something cannot become so: make another one with a key")
    }

    mutating func setSecret(of keys: TenantKeys) {
        secret = keys.sealed()
        record.keyEpoch = keys.current.number
        record.secretBytes = UInt32(secret.count)
    }
}

extension Index {
    /// Some of a tenant's nodes whose tokens are sealed with an earlier key, by the numbers of their records.
    ///
    /// - Returns: `last`, after which to go on; nil at the end.
    func sealedNodes(
        of keys: TenantKeys, after position: UInt64, countMax: Int, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (stale: [Digest], last: UInt64?) {
        var stale: [Digest] = []
        var last: UInt64?
        try nodes.records.forEachRaw(in: .after(position), in: transaction) { key, bytes in
            let node = try NodeView(bytes)
            if node.record.tenantId == keys.tenant, try keyEpoch(of: node) != keys.current.number {
                stale.append(node.record.hash)
            }
            guard stale.count == countMax else { return .continue }
            last = try BigEndianUInt64.decode(key)
            return .stop
        }
        return (stale, last)
    }

    private func keyEpoch(of node: NodeView) throws -> UInt32 {
        guard node.record.isSealed, let header = SealedValue.header(node.content)?.header else { return 0 }
        return header.keyEpoch
    }

    /// Seals a node's tokens, and the engine state kept after it, with the key in effect.
    func reseal(_ hash: Digest, with keys: TenantKeys, in transaction: borrowing WriteTransaction) throws {
        _ = try sealingKeys(of: keys.tenant, in: transaction)
        guard var node = try node(hash, in: transaction), node.record.isSealed else { return }
        let state = try state(after: hash, in: transaction)
        node.content = try tokens(of: node)
        try node.sealIfEncrypted(with: keys, hash: hash)
        try putNode(node, hash: hash, in: transaction)
        if let state { try putState(state, after: hash, in: transaction) }
    }

    /// Seals what hangs on a tenant's names with the key in effect.
    func resealHeads(of keys: TenantKeys, in transaction: borrowing WriteTransaction) throws {
        for kind in SequenceKind.allCases {
            for (key, head) in try allHeads(kind, tenant: keys.tenant, in: transaction) {
                let bytes = try encoded(head, place: Head.place(kind, key), in: transaction)
                try heads(of: kind).put(key.bytes, bytes, in: transaction)
            }
        }
        for (key, head) in try allBuilding(in: transaction) where key.head.tenant == keys.tenant {
            try building.put(key.bytes, try encoded(head, place: Head.place(key), in: transaction), in: transaction)
        }
    }

    /// Whether nothing of a tenant is sealed with an earlier key. Its heads are not looked at: they are sealed anew when it gets another.
    func isSealedWithCurrent(
        _ keys: TenantKeys, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Bool {
        var isCurrent = true
        try nodes.forEach(in: transaction) { _, bytes in
            let node = try NodeView(bytes)
            guard node.record.tenantId == keys.tenant else { return .continue }
            let encodings = (0..<node.encodingCount).map { node.encoding($0) }
            isCurrent =
                try keyEpoch(of: node) == keys.current.number
                && encodings.allSatisfy { $0.isLost || $0.keyEpoch == keys.current.number }
            return isCurrent ? .continue : .stop
        }
        return isCurrent
    }

    /// The volumes that hold pages sealed with an earlier key of the tenants whose keys were given.
    func volumesSealedWithEarlierKeys(in transaction: borrowing some Transaction & ~Copyable) throws -> Set<UInt64> {
        var current: [UInt32: UInt32] = [:]
        for id in keyRing.unlockedTenants { current[id] = keyRing.keys(of: id)?.current.number }
        var found: Set<UInt64> = []
        try nodes.forEach(in: transaction) { _, bytes in
            let node = try NodeView(bytes)
            guard let epoch = current[node.record.tenantId] else { return .continue }
            for encoding in (0..<node.encodingCount).map({ node.encoding($0) })
            where !encoding.isLost && encoding.keyEpoch < epoch { found.insert(encoding.volumeId) }
            return .continue
        }
        return found
    }
}
