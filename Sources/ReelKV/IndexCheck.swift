import KVCodec
import LMDB

/// A check of the index in progress: what its records say, read in one transaction, and whether they agree. A record that cannot be read is
/// a problem like any other, and does not hide the rest. Needs no volumes, and so no store that opens.
struct IndexCheck {
    struct CheckedHead {
        var reference: HeadReference
        var record: HeadRecord
        /// For people.
        var name: String
        var isPinning: Bool

        var isEmpty: Bool { record.tokenCount == 0 }
    }

    /// Page images, counted.
    struct Live: Hashable {
        var bytes: UInt64 = 0
        var pages: UInt64 = 0
    }

    let index: Index
    let pageTokens: Int
    var nodes = NodeCatalog()
    private(set) var volumes: [UInt64: VolumeRecord] = [:]
    private(set) var heads: [CheckedHead] = []
    private(set) var models: [UInt32: StoredModel] = [:]
    private(set) var tenants: [UInt32: StoredTenant] = [:]
    /// What encodings refer to, by volume and by tenant.
    private(set) var liveOfVolume: [UInt64: Live] = [:]
    private(set) var liveOfTenant: [UInt32: Live] = [:]
    private(set) var places: [PagePlace] = []
    /// Encodings that lie nowhere any more.
    private(set) var lostPages = 0
    /// Hashes of nodes that records speak of and no readable node has, with the page before it where that is known.
    private(set) var missing: [Digest: Digest?] = [:]
    /// Nodes whose parent or base is one of the missing, by its hash.
    private var waiting: [Digest: [(NodeCatalog.Position, WritableKeyPath<NodeCatalog.Entry, NodeCatalog.Position>)]] = [:]
    /// Whether some table could not be read to its end, so that there may be records that nothing speaks of.
    private(set) var isCutShort = false
    /// The ids that the index's own records have.
    private(set) var ownTenants: Set<UInt32> = []
    private(set) var ownModels: Set<UInt32> = []
    /// Ids that several records claim.
    private var contestedModels: Set<UInt32> = []
    private var contestedTenants: Set<UInt32> = []
    var report = VerificationReport()
    private var hashers: [UInt64: ChainHasher] = [:]

    init(_ index: Index, pageTokens: Int, identity: Identity?, in transaction: borrowing ReadTransaction) {
        self.index = index
        self.pageTokens = pageTokens
        readOwners(identity, in: transaction)
        readNodes(in: transaction)
        resolveParents(in: transaction)
        readHeads(in: transaction)
        checkOwners()
        report.nodes = nodes.count
        report.volumes = volumes.count
        report.heads = heads.count
        checkPlaces()
        checkReferences()
        checkNumbers(in: transaction)
        checkChildren(in: transaction)
        checkTips(in: transaction)
        checkLeaves(in: transaction)
        checkKept(in: transaction)
        checkAccounts(in: transaction)
        checkVolumeCounts()
        checkStoreRecords(in: transaction)
    }

    mutating func problem(_ kind: VerificationProblem.Kind, _ subject: String, _ message: String) {
        report.problems.append(VerificationProblem(kind: kind, subject: subject, message: message))
    }

    /// Runs `body`, and takes an error in it down as a problem.
    mutating func attempt(
        _ kind: VerificationProblem.Kind, _ subject: String, _ body: (inout IndexCheck) throws -> Void
    ) {
        do { try body(&self) } catch { problem(kind, subject, "\(error)") }
    }

    /// Reads a table with `body`. What LMDB itself cannot read ends the table, and not the check.
    mutating func walk(
        _ kind: VerificationProblem.Kind, _ table: String, _ body: (inout IndexCheck) throws -> Void
    ) {
        do { try body(&self) } catch {
            isCutShort = true
            problem(kind, table, "the table cannot be read to its end: \(error)")
        }
    }

    static func hex(_ key: UnsafeRawBufferPointer) -> String {
        key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// The hasher of a tenant's chains of a model; nil where either is not known.
    mutating func hasher(tenant: UInt32, model: UInt32) -> ChainHasher? {
        let key = UInt64(tenant) << 32 | UInt64(model)
        if let known = hashers[key] { return known }
        guard let owner = tenants[tenant], let spec = models[model]?.spec else { return nil }
        guard let salt = index.salt(of: owner) else { return nil }
        let hasher = ChainHasher(salt: salt, modelBytes: spec.chainBytes(), pageTokens: pageTokens)
        hashers[key] = hasher
        return hasher
    }

    /// Whether a tenant is encrypted and its key was not given: what it holds can then not be checked.
    func isLocked(_ tenant: UInt32) -> Bool { tenants[tenant].map { index.salt(of: $0) == nil } ?? false }

    /// A record that does not match its checksum is as good as missing.
    mutating func noteDamage(_ kind: VerificationProblem.Kind, _ key: UnsafeRawBufferPointer) {
        problem(kind, Self.hex(key), "its record does not match its checksum")
    }

    mutating func noteMissing(_ hash: Digest, after base: Digest? = nil) {
        if nodes.position(of: hash) != nil { return }
        if let base { missing[hash] = .some(base) } else if missing[hash] == nil { missing[hash] = .some(nil) }
    }
}

// MARK: - Nodes made anew

extension IndexCheck {
    /// Enters a node that was missing or unsound, and joins those to it that hang on it.
    mutating func enter(_ entry: NodeCatalog.Entry, hash: Digest) -> NodeCatalog.Position {
        if let known = nodes.position(of: hash) {
            nodes[known] = entry
            return known
        }
        let position = nodes.add(entry, hash: hash) ?? NodeCatalog.missing
        for (other, place) in waiting.removeValue(forKey: hash) ?? [] { nodes[other][keyPath: place] = position }
        return position
    }
}

// MARK: - Reading

extension IndexCheck {
    /// Models, tenants and volumes. A model or tenant whose record is damaged is taken from `identity`, so that what belongs to it can be told.
    private mutating func readOwners(_ identity: Identity?, in transaction: borrowing ReadTransaction) {
        let index = index
        walk(.model, "model") { check in
            try index.models.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.model, $0) }) { key, value in
                let name = String(decoding: key, as: UTF8.self)
                check.attempt(.model, name) { check in
                    let model = try StoredModel(name: name, bytes: value)
                    guard check.models[model.id] == nil else {
                        check.contestedModels.insert(model.id)
                        throw StoreError(.damaged, "has the same id as another model")
                    }
                    check.models[model.id] = model
                }
                return .continue
            }
        }
        walk(.tenant, "tenant") { check in
            try index.tenants.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.tenant, $0) }) { key, value in
                let name = String(decoding: key, as: UTF8.self)
                check.attempt(.tenant, name) { check in
                    let tenant = try StoredTenant(name: name, bytes: value)
                    guard check.tenants[tenant.id] == nil else {
                        check.contestedTenants.insert(tenant.id)
                        throw StoreError(.damaged, "has the same id as another tenant")
                    }
                    check.tenants[tenant.id] = tenant
                }
                return .continue
            }
        }
        ownTenants = Set(tenants.keys)
        ownModels = Set(models.keys)
        compare(with: identity)
        walk(.volume, "volume") { check in
            try index.volumes.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.volume, $0) }) { key, value in
                check.attempt(.volume, Self.hex(key)) { check in
                    guard let record = VolumeRecord(bytes: value) else { throw StoreError(.damaged, "its record is damaged") }
                    check.volumes[try BigEndianUInt64.decode(key)] = record
                }
                return .continue
            }
        }
    }

    private mutating func compare(with identity: Identity?) {
        guard let identity else {
            problem(
                .identity, Identity.fileName,
                "the copy of tenants and models cannot be read: without it a lost index is lost for good")
            return
        }
        // It is written before the index: a process that was killed in between leaves it with more.
        let hasAll =
            Set(identity.tenants.map(\.fixed)).isSuperset(of: tenants.values.map(\.fixed))
            && Set(identity.models.compactMap { try? $0.stored() }).isSuperset(of: models.values)
        if !hasAll { problem(.identity, Identity.fileName, "the copy of tenants and models is not what the index has") }
        for tenant in identity.tenants where tenants[tenant.id] == nil || contestedTenants.contains(tenant.id) {
            tenants[tenant.id] = tenant
        }
        for model in identity.models.compactMap({ try? $0.stored() })
        where models[model.id] == nil || contestedModels.contains(model.id) {
            models[model.id] = model
        }
    }

    /// What nodes and heads belong to must be in the index itself.
    private mutating func checkOwners() {
        let isCopied = { [tenants, models, ownTenants, ownModels] (tenant: UInt32, model: UInt32) in
            (tenants[tenant] != nil && !ownTenants.contains(tenant)) || (models[model] != nil && !ownModels.contains(model))
        }
        let isLost =
            nodes.entries.contains { isCopied($0.tenant, $0.model) }
            || heads.contains { isCopied($0.record.tenantId, $0.record.modelId) }
        if isLost { problem(.identity, Identity.fileName, "there are tenants or models that only the copy has") }
    }

    private mutating func readNodes(in transaction: borrowing ReadTransaction) {
        let index = index
        walk(.node, "node") { check in
            try index.nodes.records.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.node, $0) }) {
                key, value in
                check.attempt(.node, Self.hex(key)) { check in
                    check.add(try NodeView(value), number: try BigEndianUInt64.decode(key))
                }
                return .continue
            }
        }
    }

    /// A node's key must be the hash of its tokens behind its parent, with its tenant's salt and its model.
    private mutating func add(_ node: NodeView, number: UInt64) {
        let hash = node.record.hash
        let found = report.problems.count
        guard let position = nodes.add(NodeCatalog.Entry(node.record, number: number), hash: hash) else {
            return problem(.node, hash.hex, "is stored twice")
        }
        if isLocked(node.record.tenantId), models[node.record.modelId] != nil {
            report.lockedNodes += 1
        } else if let hasher = hasher(tenant: node.record.tenantId, model: node.record.modelId) {
            let tokens = try? index.tokens(of: node)
            if tokens.map({ hasher.hash(of: node.record, tokens: $0) }) != hash {
                problem(.node, hash.hex, "its tokens do not give its chain hash")
            }
            if tokens.flatMap({ try? TokenSequence(canonical: $0).count }) != Int(node.record.end) {
                problem(.node, hash.hex, "does not hold as many tokens as it says")
            }
            if node.record.pageFirstToken == 0, node.record.base != hasher.root {
                problem(.node, hash.hex, "is a first page, but not of its model's and tenant's chain")
            }
        } else {
            problem(.node, hash.hex, "belongs to a model or tenant that is not stored")
        }
        if report.problems.count > found { nodes[position].isUnsound = true }
        count(node, at: position)
    }

    private mutating func count(_ node: NodeView, at position: NodeCatalog.Position) {
        for encoding in (0..<node.encodingCount).map({ node.encoding($0) }) {
            if encoding.isLost {
                if !encoding.isQuarantined {
                    problem(.node, nodes.hash(position).hex, "an encoding lies nowhere, but counts as stored")
                }
                lostPages += 1
                continue
            }
            places.append(PagePlace(node: position, encoding))
            liveOfVolume[encoding.volumeId, default: Live()].add(encoding)
            liveOfTenant[node.record.tenantId, default: Live()].add(encoding)
        }
    }

    /// Parents can have later numbers than their children, so they are looked for when all nodes are known.
    private mutating func resolveParents(in transaction: borrowing ReadTransaction) {
        let index = index
        walk(.node, "node") { check in
            try index.nodes.records.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { _, value in
                guard let record = try? NodeView(value).record, let position = check.nodes.position(of: record.hash) else {
                    return .continue
                }
                let parent =
                    record.firstOwnToken == 0
                    ? NodeCatalog.root : check.nodes.position(of: record.parent) ?? NodeCatalog.missing
                let base =
                    record.pageFirstToken == 0
                    ? NodeCatalog.root : check.nodes.position(of: record.base) ?? NodeCatalog.missing
                check.nodes[position].parent = parent
                check.nodes[position].base = base
                if parent == NodeCatalog.missing {
                    check.noteMissing(record.parent)
                    check.waiting[record.parent, default: []].append((position, \.parent))
                }
                if base == NodeCatalog.missing {
                    check.noteMissing(record.base)
                    check.waiting[record.base, default: []].append((position, \.base))
                }
                return .continue
            }
        }
    }

    private mutating func readHeads(in transaction: borrowing ReadTransaction) {
        let index = index
        for kind in SequenceKind.allCases {
            walk(.head, kind.noun) { check in
                try index.heads(of: kind).forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.head, $0) }) {
                    key, value in
                    check.readHead(key, value, kind) { .finished(kind, try HeadKey(bytes: $0)) }
                    return .continue
                }
            }
        }
        walk(.head, "building") { check in
            try index.building.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.head, $0) }) { key, value in
                check.readHead(key, value, nil) { .building(try BuildingKey(bytes: $0)) }
                return .continue
            }
        }
    }

    private mutating func readHead(
        _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ kind: SequenceKind?,
        _ parse: (UnsafeRawBufferPointer) throws -> HeadReference
    ) {
        // heads being written name no kind
        attempt(.head, (try? parse(key).key.name) ?? Self.hex(key)) { check in
            let reference = try parse(key)
            let head = try Head(bytes: value)
            guard kind == nil || kind == head.kind, reference.key.tenant == head.record.tenantId else {
                throw StoreError(.damaged, "its record is another's")
            }
            let note = kind == nil ? " (being written)" : ""
            check.heads.append(
                CheckedHead(
                    reference: reference, record: head.record, name: "\(head.kind.noun)/\(reference.key.name)\(note)",
                    isPinning: kind == nil || head.record.isPinned))
        }
    }
}

extension HeadReference {
    var key: HeadKey {
        switch self {
        case .finished(_, let key): key
        case .building(let key): key.head
        }
    }
}

extension IndexCheck.Live {
    mutating func add(_ encoding: EncodingRecord) {
        bytes += UInt64(encoding.imageBytes)
        pages += 1
    }
}
