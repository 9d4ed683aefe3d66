import KVCodec
import LMDB

// Whether what the index's tables say of each other is so, both ways.
extension IndexCheck {
    /// A node must stand right behind the tokens of its parent.
    mutating func checkPlaces() {
        for (position, entry) in nodes.entries.enumerated() {
            let hash = nodes.hashes[position]
            if entry.parent == NodeCatalog.missing {
                problem(.reference, hash.hex, "its parent is not stored")
            } else if !nodes.isInPlace(entry, pageTokens: pageTokens) {
                problem(.node, hash.hex, "does not stand where its parent ends")
            }
        }
    }

    mutating func checkReferences() {
        for entry in nodes.entries where entry.parent >= 0 { nodes[entry.parent].countedChildren += 1 }
        for head in heads {
            if let message = fault(of: head) { problem(.head, head.name, message) }
            guard !head.isEmpty else { continue }
            guard let tip = nodes.position(of: head.record.tip) else {
                noteMissing(head.record.tip)
                continue
            }
            nodes[tip].countedHeads += 1
            if head.isPinning { nodes[tip].countedPins += 1 }
        }
        for (position, entry) in nodes.entries.enumerated() {
            if entry.children != entry.countedChildren || entry.heads != entry.countedHeads || entry.pins != entry.countedPins {
                problem(.reference, nodes.hashes[position].hex, "its reference counts are wrong")
            }
        }
    }

    /// What is wrong with a head; nil when nothing is.
    mutating func fault(of head: CheckedHead) -> String? {
        let record = head.record
        let isOfChain =
            isLocked(record.tenantId)
            ? models[record.modelId] != nil : hasher(tenant: record.tenantId, model: record.modelId)?.root == record.root
        guard isOfChain else {
            return "belongs to a model or tenant that is not stored"
        }
        guard Names.isPossible(head.reference.key.name) else { return "its name is none" }
        if head.isEmpty { return record.tip == record.root ? nil : "is empty, but has a last page" }
        guard let position = nodes.position(of: record.tip) else { return "its last page is not stored" }
        let tip = nodes[position]
        if UInt64(tip.pageFirstToken) + UInt64(record.tipEnd) != record.tokenCount || record.tipEnd > tip.end
            || record.tipEnd <= tip.start
        {
            return "its length is not that of its chain"
        }
        return tip.model == record.modelId && tip.tenant == record.tenantId ? nil : "its pages are another model's or tenant's"
    }

    /// Each node must be found by its hash, and nothing else.
    mutating func checkNumbers(in transaction: borrowing ReadTransaction) {
        let index = index
        var found = 0
        walk(.reference, "name") { check in
            try index.nodes.numbers.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) {
                key, value in
                let hash = try? DigestKey.decode(key)
                let position = hash.flatMap { check.nodes.position(of: $0) }
                if let position, (try? BigEndianUInt64.decode(value)) == check.nodes[position].number {
                    found += 1
                } else {
                    check.problem(.reference, Self.hex(key), "has the number of another node, or of none")
                    if let hash { check.noteMissing(hash) }
                }
                return .continue
            }
        }
        if found != nodes.count { problem(.reference, "name", "\(nodes.count - found) nodes are not found by their hash") }
    }

    mutating func checkChildren(in transaction: borrowing ReadTransaction) {
        let index = index
        var listed = 0
        walk(.reference, "child") { check in
            try index.children.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) {
                key, value in
                if let hash = try? DigestKey.decode(value) {
                    let right = try? index.nodes.withValue(hash, in: transaction) { try ChildKey.key(of: NodeView($0)) }
                    if check.nodes.position(of: hash) != nil, let right = right ?? nil, right.elementsEqual(key) {
                        listed += 1
                        return .continue
                    }
                    check.noteMissing(
                        hash, after: key.count >= Digest.byteCount ? key.loadLittleEndian(at: 0, as: Digest.self) : nil)
                }
                check.problem(.reference, Self.hex(value), "is listed as a child in the wrong place")
                return .continue
            }
        }
        if listed != nodes.count { problem(.reference, "child", "\(nodes.count - listed) nodes are not listed as children") }
    }

    /// Every head with pages must be found by its tip, and nothing else.
    mutating func checkTips(in transaction: borrowing ReadTransaction) {
        let index = index
        var listed = 0
        walk(.reference, "tip") { check in
            try index.tips.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) { bytes, _ in
                check.attempt(.reference, Self.hex(bytes)) { check in
                    let key = try TipKey(bytes: bytes)
                    check.noteMissing(key.tip)
                    let head = try index.head(key.kind, key.head, in: transaction)?.record
                    guard let head, head.tip == key.tip, head.tokenCount > 0 else {
                        throw StoreError(.damaged, "is listed as the tip of a sequence that ends elsewhere")
                    }
                    listed += 1
                }
                return .continue
            }
        }
        let expected = heads.count { head in
            if case .finished = head.reference { !head.isEmpty } else { false }
        }
        if listed != expected { problem(.reference, "tip", "\(listed) tips are listed for \(expected) videos and sessions") }
    }

    /// The order of eviction must hold each node that neither children nor pins keep, once, and no other.
    mutating func checkLeaves(in transaction: borrowing ReadTransaction) {
        let index = index
        var listed = 0
        walk(.reference, "leaf") { check in
            try index.leaves.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) { bytes, _ in
                check.attempt(.reference, Self.hex(bytes)) { check in
                    let key = try LeafKey(bytes: bytes)
                    let usage = try index.usage(key.hash, in: transaction)
                    guard let node = check.nodes.position(of: key.hash).map({ check.nodes[$0] }), node.children == 0,
                        node.pins == 0, node.tenant == key.tenant, let usage, usage.isRanked, usage.rank == key.rank
                    else { throw StoreError(.damaged, "is listed for eviction in the wrong place") }
                    listed += 1
                }
                return .continue
            }
        }
        let evictable = nodes.entries.count { $0.children == 0 && $0.pins == 0 }
        if listed != evictable { problem(.reference, "leaf", "\(listed) nodes are listed for eviction, \(evictable) should be") }
    }

    /// What is kept under a node's hash goes with the node.
    mutating func checkKept(in transaction: borrowing ReadTransaction) {
        let index = index
        walk(.reference, "usage") { check in
            try index.usages.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) { key, value in
                let position = (try? DigestKey.decode(key)).flatMap { check.nodes.position(of: $0) }
                guard let node = position.map({ check.nodes[$0] }) else {
                    check.problem(.reference, Self.hex(key), "uses are counted for it, but it is not stored")
                    return .continue
                }
                guard value.count == UsageRecord.byteCount, let usage = UsageRecord(at: 0, of: value) else {
                    check.problem(.reference, Self.hex(key), "the record of its use is damaged")
                    return .continue
                }
                if usage.isRanked != (node.children == 0 && node.pins == 0) {
                    check.problem(.reference, Self.hex(key), "its record of use says wrongly whether it may be evicted")
                }
                return .continue
            }
        }
        walk(.reference, "state") { check in
            try index.states.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.reference, $0) }) { key, _ in
                if (try? DigestKey.decode(key)).flatMap({ check.nodes.position(of: $0) }) == nil {
                    check.problem(.reference, Self.hex(key), "engine state is kept for it, but it is not stored")
                }
                return .continue
            }
        }
    }

    mutating func checkAccounts(in transaction: borrowing ReadTransaction) {
        let index = index
        var expected = liveOfTenant
        walk(.tenant, "account") { check in
            try index.accounts.forEachRaw(in: .all, in: transaction, onDamage: { check.noteDamage(.tenant, $0) }) { key, value in
                let tenant = key.count == 4 ? UInt32(bigEndian: key.loadUnaligned(as: UInt32.self)) : 0
                let name = check.tenants[tenant]?.name ?? "number \(tenant)"
                let live = expected.removeValue(forKey: tenant) ?? Live()
                let record = AccountRecord(at: 0, of: value)
                if record?.liveBytes != live.bytes || record?.livePages != live.pages {
                    check.problem(.tenant, name, "its stored bytes are counted wrong")
                }
                return .continue
            }
        }
        for tenant in expected.keys.sorted() {
            problem(.tenant, tenants[tenant]?.name ?? "number \(tenant)", "its stored bytes are not counted")
        }
    }

    mutating func checkVolumeCounts() {
        for (id, record) in volumes.sorted(by: { $0.key < $1.key }) {
            let live = liveOfVolume[id] ?? Live()
            if live.bytes != record.liveBytes || live.pages != record.livePages {
                problem(.volume, VolumeSet.fileName(of: id), "its live bytes or pages are counted wrong")
            }
        }
        for id in liveOfVolume.keys.sorted() where volumes[id] == nil {
            problem(.volume, VolumeSet.fileName(of: id), "pages lie in it, but the index does not know it")
        }
    }

    /// The store's own record must be ahead of all ids that are taken, and its settings must be readable.
    mutating func checkStoreRecords(in transaction: borrowing ReadTransaction) {
        let index = index
        attempt(.store, "store") { check in
            let record = try index.storeRecord(in: transaction)
            let writers = check.heads.compactMap { head in
                if case .building(let key) = head.reference { key.writer } else { nil }
            }
            guard record.nextVolumeId > check.volumes.keys.max() ?? 0, record.nextModelId > check.ownModels.max() ?? 0,
                record.nextTenantId > check.ownTenants.max() ?? 0, record.nextWriterId > writers.max() ?? 0
            else { throw StoreError(.damaged, "the next id it would give is taken") }
        }
        attempt(.store, "settings") { _ in _ = try index.evictionPolicy(in: transaction) }
        attempt(.store, "counters") { _ in _ = try index.counters(in: transaction) }
    }
}
