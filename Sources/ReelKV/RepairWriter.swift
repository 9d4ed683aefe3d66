import KVCodec
import LMDB

/// Writes the index that a plan describes into a new file. What is derived from nodes and heads is derived anew.
struct RepairWriter {
    private let plan: RepairPlan
    private let check: IndexCheck
    private let index: Index
    private let images: ImageSource
    private let identity: Identity?
    /// Nodes as they will refer to each other.
    private var catalog: NodeCatalog
    private var live: [UInt64: IndexCheck.Live] = [:]
    private var accounts: [UInt32: IndexCheck.Live] = [:]
    private var evictable: [Digest] = []
    private var batch: [(NodeCatalog.Position, Node)] = []
    private(set) var changes: [VerificationProblem] = []

    /// Nodes written in one transaction, so that what is written stays small in memory.
    private static let batchMax = 4096

    /// - Parameter index: new, without records.
    init(_ plan: RepairPlan, to index: Index, images: ImageSource, identity: Identity?) {
        self.plan = plan
        self.check = plan.check
        self.index = index
        self.images = images
        self.identity = identity
        catalog = plan.check.nodes
        for position in catalog.entries.indices {
            catalog.entries[position].countedChildren = 0
            catalog.entries[position].countedHeads = 0
            catalog.entries[position].countedPins = 0
        }
        for (entry, isKept) in zip(catalog.entries, plan.isKept) where isKept && entry.parent >= 0 {
            catalog[entry.parent].countedChildren += 1
        }
        for head in plan.heads where head.record.tokenCount > 0 {
            guard let tip = catalog.position(of: head.record.tip) else { continue }
            catalog[tip].countedHeads += 1
            if head.isPinning { catalog[tip].countedPins += 1 }
        }
        numberRecovered()
    }

    /// Nodes that are made anew get the numbers behind all others.
    private mutating func numberRecovered() {
        var next = (catalog.entries.map(\.number).max() ?? 0) + 1
        for position in plan.recovered.keys.sorted() {
            catalog[position].number = next
            next += 1
        }
    }

    /// - Parameter former: the index that the plan was made of; nil where there is none.
    mutating func write(
        former: Index?, store: StoreRecord, in transaction: borrowing ReadTransaction
    ) throws {
        try writeOwners(former, in: transaction)
        if let former { try writeKept(former, in: transaction) }
        for position in plan.recovered.keys.sorted() where plan.isKept[Int(position)] { try writeRecovered(position) }
        try flush()
        if let former {
            try writeHeads(former, in: transaction)
            try copy(former.states, to: index.states, in: transaction) { Array($0) }
            try copy(former.usages, to: index.usages, in: transaction) { bytes in
                guard bytes.count == UsageRecord.byteCount, var usage = UsageRecord(at: 0, of: bytes) else { return nil }
                usage.rank = 0
                usage.isRanked = false
                var value: [UInt8] = []
                value.append(usage)
                return value
            }
        }
        try writeCounts(store)
        try rankLeaves()
        try index.environment.sync()
    }

    // MARK: - Owners and the store's records

    private func writeOwners(_ former: Index?, in transaction: borrowing ReadTransaction) throws {
        var used: Set<UInt64> = []
        for (entry, isKept) in zip(catalog.entries, plan.isKept) where isKept {
            used.insert(UInt64(entry.tenant) << 32 | UInt64(entry.model))
        }
        let heads = plan.heads.map(\.record)
        let tenants = Set(used.map { UInt32($0 >> 32) } + heads.map(\.tenantId))
        let models = Set(used.map { UInt32(truncatingIfNeeded: $0) } + heads.map(\.modelId))
        var tenantRecords: [String: StoredTenant] = [:]
        var modelRecords: [String: [UInt8]] = [:]
        for tenant in identity?.tenants ?? [] where former == nil || tenants.contains(tenant.id) {
            tenantRecords[tenant.name] = tenant
        }
        for model in identity?.models ?? [] {
            guard let id = try? model.stored().id, former == nil || models.contains(id) else { continue }
            modelRecords[model.name] = model.bytes
        }
        if let former {
            try? former.tenants.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { key, value in
                let name = String(decoding: key, as: UTF8.self)
                if let tenant = try? StoredTenant(name: name, bytes: value), check.tenants[tenant.id]?.name == name,
                    // under an id that nobody has, it is not the one that nodes and heads are of
                    tenantRecords[name] == nil || tenants.contains(tenant.id)
                {
                    tenantRecords[name] = tenant
                }
                return .continue
            }
            try? former.models.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { key, value in
                let name = String(decoding: key, as: UTF8.self)
                if let model = try? StoredModel(name: name, bytes: value), check.models[model.id]?.spec.name == name,
                    modelRecords[name] == nil || models.contains(model.id)
                {
                    modelRecords[name] = Array(value)
                }
                return .continue
            }
        }
        let records = try former.map { try storeRecords(of: $0, in: transaction) } ?? []
        try index.environment.write { transaction in
            for tenant in tenantRecords.values { try index.putTenant(tenant, in: transaction) }
            for (name, bytes) in modelRecords { try index.models.put(name, bytes, in: transaction) }
            if let settings = identity?.settings, records.allSatisfy({ $0.key != Index.settingsKey }) {
                try index.putSettings(settings, in: transaction)
            }
            for (key, value) in records { try index.stores.put(key, value, in: transaction) }
        }
    }

    /// The store's records that can be read, but for its own, which is written last: without it the file is no index.
    private func storeRecords(
        of former: Index, in transaction: borrowing ReadTransaction
    ) throws -> [(key: String, value: [UInt8])] {
        var records: [(key: String, value: [UInt8])] = []
        try? former.stores.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { key, value in
            records.append((String(decoding: key, as: UTF8.self), Array(value)))
            return .continue
        }
        return records.filter { record in
            switch record.key {
            case Index.storeKey: false
            case Index.settingsKey: (try? former.evictionPolicy(in: transaction)) != nil
            case Index.countersKey: record.value.count == CounterRecord.byteCount
            default: true
            }
        }
    }

    // MARK: - Nodes

    private mutating func writeKept(_ former: Index, in transaction: borrowing ReadTransaction) throws {
        var writer = self
        do {
            try former.nodes.records.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { key, value in
                guard let node = try? Node(bytes: value), let position = writer.catalog.position(of: node.record.hash),
                    writer.plan.isKept[Int(position)], writer.plan.recovered[position] == nil,
                    (try? BigEndianUInt64.decode(key)) == writer.catalog[position].number
                else { return .continue }
                try writer.write(node, at: position)
                return .continue
            }
        } catch let error as LMDBError where [.corrupted, .pageNotFound].contains(error.code) {
            // the plan has been made of what can be read
        }
        self = writer
    }

    private mutating func writeRecovered(_ position: NodeCatalog.Position) throws {
        guard let encodings = plan.recovered[position], let first = encodings.first else { return }
        let entry = catalog[position]
        let found = try images.withImage(first.location) { $0.identity }
        guard let identity = found else { return }
        let base = entry.base >= 0 ? catalog.hash(entry.base) : identity.parentHash
        let root = entry.pageFirstToken == 0 ? plan.rootOfChain(entry) : nil
        let record = NodeRecord(
            base: root ?? base, parent: identity.parentHash,
            pageFirstToken: UInt64(entry.pageFirstToken), start: UInt32(entry.start), end: UInt32(entry.end),
            parentEnd: UInt32(entry.parentEnd), modelId: entry.model, tenantId: entry.tenant, children: 0, heads: 0,
            tokenBytes: 0, kind: entry.kind.rawValue, encodingCount: 0, flags: 0, pins: 0, createdSeconds: Platform.unixSeconds(),
            createdAccess: 0, hash: identity.chainHash, next: 0)
        var node = Node(record: record, encodings: encodings, tokens: identity.tokens)
        try node.sealIfEncrypted(with: index.keyRing.keys(of: entry.tenant), hash: identity.chainHash)
        try write(node, at: position)
    }

    private mutating func write(_ node: Node, at position: NodeCatalog.Position) throws {
        var node = node
        let entry = catalog[position]
        node.record.children = entry.countedChildren
        node.record.heads = entry.countedHeads
        node.record.pins = entry.countedPins
        for index in node.encodings.indices where !node.encodings[index].isLost {
            let id = node.encodings[index].volumeId
            if !plan.readableVolumes.contains(id) { node.encodings[index].lose() }
        }
        if node.encodings.contains(where: { !$0.isLost }) { node.encodings.removeAll(where: \.isLost) }
        for index in node.encodings.indices where node.encodings[index].isLost { node.encodings[index].isQuarantined = true }
        for encoding in node.encodings where !encoding.isLost {
            live[encoding.volumeId, default: .init()].add(encoding)
            accounts[entry.tenant, default: .init()].add(encoding)
        }
        if entry.countedChildren == 0, entry.countedPins == 0 { evictable.append(node.record.hash) }
        batch.append((position, node))
        if batch.count >= Self.batchMax { try flush() }
    }

    private mutating func flush() throws {
        let batch = batch
        let (index, catalog) = (index, catalog)
        try index.environment.write { transaction in
            for (position, node) in batch {
                let (hash, number) = (node.record.hash, catalog[position].number)
                try index.nodes.records.put(number, node.encoded(), in: transaction)
                try index.nodes.numbers.put(hash, withUnsafeBytes(of: number.bigEndian) { Array($0) }, in: transaction)
                try index.children.put(ChildKey.key(of: node), hash.bytes, in: transaction)
            }
        }
        self.batch = []
    }

    // MARK: - Heads, and what is kept under nodes' hashes

    private func writeHeads(_ former: Index, in transaction: borrowing ReadTransaction) throws {
        for planned in plan.heads {
            let found: Head? =
                switch planned.reference {
                case .finished(let kind, let key): try former.head(kind, key, in: transaction)
                case .building(let key): try former.buildingHead(key, in: transaction)
                }
            guard var head = found else { continue }
            head.record = planned.record
            head.turns.removeAll { UInt64($0.firstToken) > planned.record.tokenCount }
            head.frames.removeAll { UInt64($0.firstToken + $0.tokenCount) > planned.record.tokenCount }
            try index.environment.write { transaction in
                switch planned.reference {
                case .building(let key):
                    let bytes = try index.encoded(head, place: Head.place(key), in: transaction)
                    try index.building.put(key.bytes, bytes, in: transaction)
                case .finished(let kind, let key):
                    let bytes = try index.encoded(head, place: Head.place(kind, key), in: transaction)
                    try index.heads(of: kind).put(key.bytes, bytes, in: transaction)
                    guard !head.isEmpty else { return }
                    try index.tips.put(TipKey(tip: head.record.tip, kind: kind, head: key).bytes, [], in: transaction)
                }
            }
        }
    }

    private func copy(
        _ table: Database<DigestKey, RawBytes>, to new: Database<DigestKey, RawBytes>,
        in transaction: borrowing ReadTransaction, _ change: (UnsafeRawBufferPointer) -> [UInt8]?
    ) throws {
        var entries: [(hash: Digest, value: [UInt8])] = []
        let flush = { (entries: [(hash: Digest, value: [UInt8])]) in
            _ = try index.environment.write { transaction in
                for entry in entries { try new.put(entry.hash, entry.value, in: transaction) }
            }
        }
        try? table.forEachRaw(in: .all, in: transaction, onDamage: { _ in }) { key, value in
            guard let hash = try? DigestKey.decode(key), let position = catalog.position(of: hash),
                plan.isKept[Int(position)], let value = change(value)
            else { return .continue }
            entries.append((hash, value))
            if entries.count >= Self.batchMax {
                try flush(entries)
                entries = []
            }
            return .continue
        }
        try flush(entries)
    }

    // MARK: - Counts

    private func writeCounts(_ store: StoreRecord) throws {
        var store = store
        store.formatVersion = max(store.formatVersion, Index.formatVersion)
        store.minimumReaderVersion = max(store.minimumReaderVersion, Index.formatVersion)
        let files = try images.ids()
        let volumes = Set(live.keys).union(check.volumes.keys)
        store.nextVolumeId = max(store.nextVolumeId, (volumes.union(files).max() ?? 0) + 1)
        store.nextModelId = max(store.nextModelId, (check.models.keys.max() ?? 0) + 1)
        store.nextTenantId = max(store.nextTenantId, (check.tenants.keys.max() ?? 0) + 1)
        for head in plan.heads {
            if case .building(let key) = head.reference { store.nextWriterId = max(store.nextWriterId, key.writer + 1) }
        }
        try index.environment.write { transaction in
            for id in volumes.sorted() {
                guard let record = volumeRecord(id) else { continue }
                try index.putVolume(record, id: id, in: transaction)
            }
            for (tenant, live) in accounts {
                try index.updateAccount(tenant, in: transaction) {
                    $0 = AccountRecord(liveBytes: live.bytes, livePages: live.pages)
                }
            }
            try index.putStoreRecord(store, in: transaction)
        }
    }

    /// nil for a volume that is gone.
    private func volumeRecord(_ id: UInt64) -> VolumeRecord? {
        let live = live[id] ?? IndexCheck.Live()
        let known = check.volumes[id]
        // one that has no file yet is about to get it
        let isNew = known.map { $0.writtenPages == 0 && !$0.isSealed } ?? false
        guard plan.readableVolumes.contains(id) || isNew else { return nil }
        let now = Platform.unixSeconds()
        var record =
            known
            ?? VolumeRecord(
                state: VolumeRecord.sealedState, liveBytes: 0, livePages: 0, writtenBytes: 0, writtenPages: 0,
                createdSeconds: now, sealedSeconds: now)
        record.liveBytes = live.bytes
        record.livePages = live.pages
        record.writtenBytes = max(record.writtenBytes, live.bytes)
        record.writtenPages = max(record.writtenPages, live.pages)
        return record
    }

    private func rankLeaves() throws {
        var rest = evictable[...]
        while !rest.isEmpty {
            let some = rest.prefix(Self.batchMax)
            rest = rest.dropFirst(some.count)
            try index.environment.write { transaction in
                for hash in some { try index.rankAnew(hash, in: transaction) }
            }
        }
    }
}

extension RepairPlan {
    /// Where the chain of a node begins.
    func rootOfChain(_ entry: NodeCatalog.Entry) -> Digest? {
        var check = check
        return check.hasher(tenant: entry.tenant, model: entry.model)?.root
    }
}
