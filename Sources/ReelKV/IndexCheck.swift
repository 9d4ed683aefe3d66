import KVCodec
import LMDB

/// A verification in progress: what the index says, read once in one transaction. A record that cannot be read is a problem like any
/// other, and does not hide the rest.
struct IndexCheck {
    let store: Store
    private(set) var nodes: [Digest: Node] = [:]
    private(set) var volumes: [UInt64: VolumeRecord] = [:]
    private var heads: [(name: String, head: Head, isPinning: Bool)] = []
    private(set) var models: [UInt32: StoredModel] = [:]
    private var tenants: [UInt32: StoredTenant] = [:]
    var report = VerificationReport()
    /// The pages found damaged.
    var damaged: [(hash: Digest, encoding: EncodingRecord)] = []

    init(_ store: Store, in transaction: borrowing ReadTransaction) throws {
        self.store = store
        let index = store.index
        try read(in: transaction)
        report.nodes = nodes.count
        report.volumes = volumes.count
        report.heads = heads.count
        checkNames()
        checkPlaces()
        checkReferences()
        try checkNumbers(in: transaction)
        try checkChildren(in: transaction)
        try checkTips(in: transaction)
        try checkLeaves(in: transaction)
        try checkAccounts(in: transaction)
        try index.states.forEachRaw(in: .all, in: transaction) { key, _ in
            if (try? DigestKey.decode(key)).flatMap({ nodes[$0] }) == nil {
                problem(.reference, Self.hex(key), "engine state is kept for it, but it is not stored")
            }
            return .continue
        }
    }

    mutating func problem(_ kind: VerificationProblem.Kind, _ subject: String, _ message: String) {
        report.problems.append(VerificationProblem(kind: kind, subject: subject, message: message))
    }

    // MARK: - Reading

    private mutating func read(in transaction: borrowing ReadTransaction) throws {
        let index = store.index
        try index.models.forEachRaw(in: .all, in: transaction) { key, value in
            let name = String(decoding: key, as: UTF8.self)
            attempt(.model, name) { check in
                let model = try StoredModel(name: name, bytes: value)
                check.models[model.id] = model
            }
            return .continue
        }
        try index.tenants.forEachRaw(in: .all, in: transaction) { key, value in
            let name = String(decoding: key, as: UTF8.self)
            attempt(.tenant, name) { check in
                let tenant = try StoredTenant(name: name, bytes: value)
                check.tenants[tenant.id] = tenant
            }
            return .continue
        }
        try index.nodes.forEach(in: transaction) { key, value in
            attempt(.node, Self.hex(key)) { $0.nodes[try DigestKey.decode(key)] = try Node(bytes: value) }
            return .continue
        }
        try index.volumes.forEachRaw(in: .all, in: transaction) { key, value in
            attempt(.volume, Self.hex(key)) { check in
                guard let record = VolumeRecord(bytes: value) else { throw StoreError(.damaged, "its record is damaged") }
                check.volumes[try BigEndianUInt64.decode(key)] = record
            }
            return .continue
        }
        for kind in SequenceKind.allCases {
            try index.heads(of: kind).forEachRaw(in: .all, in: transaction) { key, value in
                readHead(key, value) { (kind, try HeadKey(bytes: $0), "") }
                return .continue
            }
        }
        try index.building.forEachRaw(in: .all, in: transaction) { key, value in
            readHead(key, value) { (nil, try BuildingKey(bytes: $0).head, " (being written)") }
            return .continue
        }
    }

    private mutating func readHead(
        _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer,
        _ parse: (UnsafeRawBufferPointer) throws -> (kind: SequenceKind?, key: HeadKey, note: String)
    ) {
        // heads being written name no kind
        attempt(.head, (try? parse(key).key.name) ?? Self.hex(key)) { check in
            let (kind, key, note) = try parse(key)
            let head = try Head(bytes: value)
            guard kind == nil || kind == head.kind, key.tenant == head.record.tenantId else {
                throw StoreError(.damaged, "its record is another's")
            }
            let isPinning = kind == nil || head.record.isPinned
            check.heads.append(("\(head.kind.noun)/\(key.name)\(note)", head, isPinning))
        }
    }

    /// Runs `body`, and takes an error in it down as a problem.
    private mutating func attempt(
        _ kind: VerificationProblem.Kind, _ subject: String, _ body: (inout IndexCheck) throws -> Void
    ) {
        do { try body(&self) } catch { problem(kind, subject, "\(error)") }
    }

    private static func hex(_ key: UnsafeRawBufferPointer) -> String {
        key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    // MARK: - Checking

    /// A node's key must be the hash of its tokens behind its parent, with its tenant's salt and its model.
    private mutating func checkNames() {
        for (hash, node) in nodes {
            guard let model = models[node.record.modelId], let tenant = tenants[node.record.tenantId] else {
                problem(.node, hash.hex, "belongs to a model or tenant that is not stored")
                continue
            }
            let hasher = store.hasher(tenant: tenant, model: model)
            let isNamed = node.encoded().withUnsafeBytes { bytes in
                (try? NodeView(bytes)).map { hasher.hash(of: $0) } == hash
            }
            if !isNamed { problem(.node, hash.hex, "its tokens do not give its chain hash") }
            if node.record.pageFirstToken == 0, node.record.base != hasher.root {
                problem(.node, hash.hex, "is a first page, but not of its model's and tenant's chain")
            }
            if (try? TokenSequence(canonical: node.tokens).count) != Int(node.record.end) {
                problem(.node, hash.hex, "does not hold as many tokens as it says")
            }
        }
    }

    /// A node must stand right behind the tokens of its parent.
    private mutating func checkPlaces() {
        for (hash, node) in nodes where node.firstOwnToken > 0 {
            guard let parent = nodes[node.record.parent] else {
                problem(.reference, hash.hex, "its parent is not stored")
                continue
            }
            let isBehind =
                node.record.start == 0
                ? parent.kind == .page && parent.record.pageFirstToken + UInt64(store.pageTokens) == node.record.pageFirstToken
                : parent.record.base == node.record.base && parent.record.pageFirstToken == node.record.pageFirstToken
                    && parent.record.start < node.record.start && parent.record.end >= node.record.parentEnd
            let isWhole = node.kind == .piece || node.record.end == store.pageTokens
            if !isBehind || !isWhole || node.record.end > store.pageTokens {
                problem(.node, hash.hex, "does not stand where its parent ends")
            }
        }
    }

    private mutating func checkReferences() {
        var children: [Digest: UInt32] = [:]
        var tips: [Digest: UInt32] = [:]
        var pins: [Digest: UInt32] = [:]
        for node in nodes.values { children[node.record.parent, default: 0] += 1 }
        for (name, head, isPinning) in heads where !head.isEmpty {
            tips[head.record.tip, default: 0] += 1
            if isPinning { pins[head.record.tip, default: 0] += 1 }
            guard let tip = nodes[head.record.tip] else {
                problem(.head, name, "its last page is not stored")
                continue
            }
            if tip.record.pageFirstToken + UInt64(head.record.tipEnd) != head.record.tokenCount
                || head.record.tipEnd > tip.record.end || head.record.tipEnd <= tip.record.start
            {
                problem(.head, name, "its length is not that of its chain")
            }
            if tip.record.modelId != head.record.modelId || tip.record.tenantId != head.record.tenantId {
                problem(.head, name, "its pages are another model's or tenant's")
            }
        }
        for (hash, node) in nodes {
            if node.record.children != children[hash, default: 0] || node.record.heads != tips[hash, default: 0]
                || node.record.pins != pins[hash, default: 0]
            {
                problem(.reference, hash.hex, "its reference counts are wrong")
            }
        }
    }

    /// Every head with pages must be found by its tip, and nothing else.
    private mutating func checkTips(in transaction: borrowing ReadTransaction) throws {
        var listed = 0
        try store.index.tips.forEachRaw(in: .all, in: transaction) { bytes, _ in
            attempt(.reference, Self.hex(bytes)) { check in
                let key = try TipKey(bytes: bytes)
                guard try check.store.index.head(key.kind, key.head, in: transaction)?.record.tip == key.tip else {
                    throw StoreError(.damaged, "is listed as the tip of a sequence that ends elsewhere")
                }
            }
            listed += 1
            return .continue
        }
        let finished = try SequenceKind.allCases.reduce(0) { $0 + (try store.index.heads(of: $1).count(in: transaction)) }
        let empty = heads.filter(\.head.isEmpty).count
        let building = try store.index.building.count(in: transaction)
        if listed > finished || listed + empty + building < finished {
            problem(.reference, "tip", "\(listed) tips are listed for \(finished) videos and sessions")
        }
    }

    /// The order of eviction must hold each node that neither children nor pins keep, once, and no other.
    private mutating func checkLeaves(in transaction: borrowing ReadTransaction) throws {
        var listed = 0
        try store.index.leaves.forEachRaw(in: .all, in: transaction) { bytes, _ in
            attempt(.reference, Self.hex(bytes)) { check in
                let key = try LeafKey(bytes: bytes)
                let usage = try check.store.index.usage(key.hash, in: transaction)
                guard let node = check.nodes[key.hash], node.record.children == 0, node.record.pins == 0,
                    node.record.tenantId == key.tenant, let usage, usage.isRanked, usage.rank == key.rank
                else { throw StoreError(.damaged, "is listed for eviction in the wrong place") }
            }
            listed += 1
            return .continue
        }
        let evictable = nodes.values.filter { $0.record.children == 0 && $0.record.pins == 0 }.count
        if listed != evictable { problem(.reference, "leaf", "\(listed) nodes are listed for eviction, \(evictable) should be") }
        try store.index.usages.forEachRaw(in: .all, in: transaction) { key, _ in
            if (try? DigestKey.decode(key)).flatMap({ nodes[$0] }) == nil {
                problem(.reference, Self.hex(key), "uses are counted for it, but it is not stored")
            }
            return .continue
        }
    }

    private mutating func checkAccounts(in transaction: borrowing ReadTransaction) throws {
        var live: [UInt32: UInt64] = [:]
        for node in nodes.values {
            live[node.record.tenantId, default: 0] += node.encodings.reduce(0) { $0 + UInt64($1.imageBytes) }
        }
        for tenant in tenants.values {
            let counted = try store.index.account(of: tenant.id, in: transaction).liveBytes
            if counted != live[tenant.id, default: 0] {
                problem(.tenant, tenant.name, "its stored bytes are counted wrong")
            }
        }
    }

    private mutating func checkNumbers(in transaction: borrowing ReadTransaction) throws {
        var found = 0
        try store.index.nodes.numbers.forEachRaw(in: .all, in: transaction) { key, value in
            guard let hash = try? DigestKey.decode(key), let number = try? BigEndianUInt64.decode(value), nodes[hash] != nil,
                try store.index.nodes.hash(of: number, in: transaction) == hash
            else {
                problem(.reference, Self.hex(key), "has the number of another node, or of none")
                return .continue
            }
            found += 1
            return .continue
        }
        if found != nodes.count { problem(.reference, "name", "\(nodes.count - found) nodes are not found by their hash") }
    }

    private mutating func checkChildren(in transaction: borrowing ReadTransaction) throws {
        var listed = 0
        try store.index.children.forEachRaw(in: .all, in: transaction) { key, value in
            guard let hash = try? DigestKey.decode(value), let node = nodes[hash],
                let tokens = try? TokenSequence(canonical: node.tokens),
                ChildKey.key(of: hash, base: node.record.base, tokens: tokens).elementsEqual(key)
            else {
                problem(.reference, Self.hex(value), "is listed as a child in the wrong place")
                return .continue
            }
            listed += 1
            return .continue
        }
        if listed != nodes.count { problem(.reference, "child", "\(nodes.count - listed) nodes are not listed as children") }
    }
}
