import KVCodec
import LMDB

/// A tenant as its record says.
struct StoredTenant: Hashable, Sendable, CustomReflectable {
    var name: String
    var record: TenantRecord
    /// What its key opens; empty for a tenant that is not encrypted.
    var secret: [UInt8]

    var id: UInt32 { record.tenantId }
    var isEncrypted: Bool { record.isEncrypted }

    /// Without the salt, which a description of what holds a tenant would show.
    var customMirror: Mirror { Mirror(self, children: ["id": id, "name": name]) }
}

// MARK: - Models

extension Store {
    /// Registers a model. The same spec under the same name again is a no-op.
    ///
    /// - Throws: `StoreError.alreadyExists` when the name stands for another spec, `invalidArgument` for a spec out of range.
    public func addModel(_ spec: ModelSpec) throws {
        try spec.validate()
        try checkPageSize(spec)
        try write { transaction in
            if let known = try index.model(named: spec.name, in: transaction) {
                guard known.spec == spec else {
                    throw StoreError(
                        .alreadyExists,
                        "the model name '\(spec.name)' stands for other weights or another geometry: choose another name, or remove the model"
                    )
                }
                return
            }
            let id = try index.takeID(\.nextModelId, in: transaction)
            try index.models.put(
                spec.name, spec.encoded(id: id, createdSeconds: Platform.unixSeconds()), in: transaction)
            try saveIdentity(in: transaction)
        }
    }

    /// All models, by name.
    public func models() throws -> [ModelSpec] { try read { try index.allModels(in: $0).map(\.spec) } }

    /// - Throws: `StoreError.notFound`.
    public func model(named name: String) throws -> ModelSpec { try storedModel(named: name).spec }

    /// Removes a model that no sequence uses.
    ///
    /// - Parameter deletingSequences: whether to delete all its videos and sessions, of every tenant, with it.
    /// - Throws: `StoreError.inUse` when sequences use it.
    public func removeModel(named name: String, deletingSequences: Bool = false) throws {
        try write { transaction in
            guard let model = try index.model(named: name, in: transaction) else { throw Self.noModel(name) }
            let heads = try index.references(where: { $0.modelId == model.id }, in: transaction)
            guard deletingSequences || heads.isEmpty else {
                let (use, them) = heads.count == 1 ? ("sequence uses", "it") : ("sequences use", "them")
                throw StoreError(
                    .inUse, "\(heads.count) \(use) the model '\(name)': delete \(them) first, or together with it")
            }
            try index.remove(heads, in: transaction)
            try index.removeUnnamed(where: { $0.modelId == model.id }, in: transaction)
            _ = try index.models.delete(name, in: transaction)
        }
        try write { try saveIdentity(in: $0) }
        try removeDeadVolumes()
    }

    func storedModel(named name: String) throws -> StoredModel {
        try read { transaction in
            guard let model = try index.model(named: name, in: transaction) else { throw Self.noModel(name) }
            return model
        }
    }

    private static func noModel(_ name: String) -> StoreError {
        StoreError(.notFound, "no model '\(name)' in the store: `reelkv model ls` lists them, `reelkv model add` adds one")
    }
}

// MARK: - Tenants

extension Store {
    /// All tenants' names.
    public func tenants() throws -> [String] { try read { try index.allTenants(in: $0).map(\.name) } }

    /// Deletes a tenant with all its videos and sessions. Its salt is gone with it: nothing of it can ever match again.
    ///
    /// - Throws: `StoreError.notFound`.
    public func removeTenant(named name: String) throws {
        try write { transaction in
            guard let tenant = try index.tenant(named: name, in: transaction) else { throw Self.noTenant(name) }
            let heads = try index.references(where: { $0.tenantId == tenant.id }, in: transaction)
            try index.remove(heads, in: transaction)
            try index.removeUnnamed(where: { $0.tenantId == tenant.id }, in: transaction)
            _ = try index.tenants.delete(name, in: transaction)
        }
        try write { try saveIdentity(in: $0) }
        try removeDeadVolumes()
    }

    /// The tenant, or nil when it has never stored anything.
    func storedTenant(named name: String) throws -> StoredTenant? {
        try read { try index.tenant(named: name, in: $0) }
    }

    /// The tenant; makes it, with a salt of its own, when it is new.
    func makeTenant(named name: String, salt: Digest? = nil) throws -> StoredTenant {
        try Names.check(name, what: "tenant")
        if let known = try storedTenant(named: name) { return known }
        let key = index.keyRing.awaitedKey(ofTenant: name)
        let (tenant, keys) = try write { transaction in
            if let known = try index.tenant(named: name, in: transaction) { return (known, nil as TenantKeys?) }
            return try index.addTenant(named: name, salt: salt, key: key, in: transaction) { try saveIdentity(in: transaction) }
        }
        if let keys { index.keyRing.add(keys) }
        return tenant
    }

    static func noTenant(_ name: String) -> StoreError {
        StoreError(.notFound, "no tenant '\(name)' in the store")
    }

    /// Space comes back as soon as a sealed volume holds nothing alive.
    func removeDeadVolumes() throws {
        try StoreError.translating { try volumes.removeDead() }
    }
}

extension Index {
    func model(named name: String, in transaction: borrowing some Transaction & ~Copyable) throws -> StoredModel? {
        guard Names.isPossible(name) else { return nil }
        return try models.withValue(name, in: transaction) { try StoredModel(name: name, bytes: $0) }
    }

    func allModels(in transaction: borrowing some Transaction & ~Copyable) throws -> [StoredModel] {
        var all: [StoredModel] = []
        try models.forEachRaw(in: .all, in: transaction) { key, value in
            all.append(try StoredModel(name: String(decoding: key, as: UTF8.self), bytes: value))
            return .continue
        }
        return all
    }

    func tenant(named name: String, in transaction: borrowing some Transaction & ~Copyable) throws -> StoredTenant? {
        guard Names.isPossible(name) else { return nil }
        return try tenants.withValue(name, in: transaction) { try StoredTenant(name: name, bytes: $0) }
    }

    func tenantRecord(
        named name: String, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> TenantRecord? {
        try tenant(named: name, in: transaction)?.record
    }

    func putTenant(_ tenant: StoredTenant, in transaction: borrowing WriteTransaction) throws {
        try tenants.put(tenant.name, tenant.encoded(), in: transaction)
    }

    /// The salt of a tenant's chains; nil for an encrypted tenant whose key, as it is now, was not given.
    func salt(of tenant: StoredTenant) -> Digest? {
        tenant.isEncrypted ? keyRing.keys(of: tenant)?.salt : tenant.record.salt
    }

    /// Makes a tenant, encrypted if there is a key.
    func addTenant(
        named name: String, salt: Digest?, key: EncryptionKey?, in transaction: borrowing WriteTransaction,
        beforeCommit: () throws -> Void
    ) throws -> (tenant: StoredTenant, keys: TenantKeys?) {
        let id = try takeID(\.nextTenantId, in: transaction)
        let keys = key.map { TenantKeys(tenant: id, name: name, owner: $0) }
        let secret = keys?.sealed() ?? []
        let tenant = StoredTenant(
            name: name,
            record: TenantRecord(
                salt: keys == nil ? salt ?? ChainHasher.randomSalt() : .zero, tenantId: id,
                flags: keys == nil ? 0 : TenantRecord.encryptedFlag, createdSeconds: Platform.unixSeconds(), quotaBytes: 0,
                keyEpoch: keys?.current.number ?? 0, secretBytes: UInt32(secret.count)),
            secret: secret)
        if keys != nil {
            // older readers would take sealed pages for damaged ones
            var store = try storeRecord(in: transaction)
            store.formatVersion = max(store.formatVersion, Self.encryptedVersion)
            store.minimumReaderVersion = max(store.minimumReaderVersion, Self.encryptedVersion)
            try putStoreRecord(store, in: transaction)
        }
        try putTenant(tenant, in: transaction)
        try beforeCommit()
        return (tenant, keys)
    }

    func allTenants(in transaction: borrowing some Transaction & ~Copyable) throws -> [StoredTenant] {
        var all: [StoredTenant] = []
        try tenants.forEachRaw(in: .all, in: transaction) { key, value in
            all.append(try StoredTenant(name: String(decoding: key, as: UTF8.self), bytes: value))
            return .continue
        }
        return all
    }

    /// Every head, finished or being written, that `condition` picks.
    func references(
        where condition: (HeadRecord) -> Bool, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [HeadReference] {
        var found: [HeadReference] = []
        for kind in [SequenceKind.video, .session] {
            for (key, head) in try allHeads(kind, in: transaction) where condition(head.record) {
                found.append(.finished(kind, key))
            }
        }
        for (key, head) in try allBuilding(in: transaction) where condition(head.record) { found.append(.building(key)) }
        return found
    }

    func remove(_ references: [HeadReference], in transaction: borrowing WriteTransaction) throws {
        for reference in references {
            switch reference {
            case .finished(let kind, let key): try replaceHead(kind, key, with: nil, in: transaction)
            case .building(let key): try moveBuilding(key, to: nil, in: transaction)
            }
        }
    }
}

extension Index {
    /// Removes the pages that no name leads to: those that were left when others behind them were evicted.
    func removeUnnamed(where condition: (NodeRecord) -> Bool, in transaction: borrowing WriteTransaction) throws {
        var found: [Digest] = []
        try leaves.forEachRaw(in: .all, in: transaction) { key, _ in
            found.append(try LeafKey(bytes: key).hash)
            return .continue
        }
        for hash in found {
            guard let node = try node(hash, in: transaction), condition(node.record), node.record.heads == 0 else { continue }
            try removeNode(node, hash: hash, in: transaction)
            try release(node.record.parent, \.children, in: transaction)
        }
    }
}

/// Names a head of either state.
enum HeadReference: Hashable {
    case finished(SequenceKind, HeadKey)
    case building(BuildingKey)
}

extension StoredTenant {
    private static let secretBytesMax = 1 << 16

    init(name: String, bytes: UnsafeRawBufferPointer) throws {
        guard let record = TenantRecord(at: 0, of: bytes), bytes.count == TenantRecord.byteCount + Int(record.secretBytes),
            record.isEncrypted == (record.secretBytes > 0), record.secretBytes <= Self.secretBytesMax
        else {
            throw StoreError(.damaged, "the record of tenant '\(name)' is damaged; run `reelkv verify`")
        }
        self.init(name: name, record: record, secret: Array(bytes[TenantRecord.byteCount...]))
    }

    func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(record)
        return bytes + secret
    }
}

extension TenantRecord {
    static let encryptedFlag: UInt32 = 1

    var isEncrypted: Bool { flags & Self.encryptedFlag != 0 }
}
