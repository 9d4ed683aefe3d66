import KVCodec
import LMDB

// How nodes were used, and the order in which they may be evicted.
//
// An access is counted at the node where it ended, and nowhere else: the nodes before it were used as well, but as they are evicted
// after it, it is enough that they hear of it then. So a use costs one small record, however long the prefix; and since a node is
// never used less or less recently than what hangs on it, the order of eviction needs to know leaves only.

extension Index {
    func usage(_ hash: Digest, in transaction: borrowing some Transaction & ~Copyable) throws -> UsageRecord? {
        try usages.withValue(hash, in: transaction) { bytes in
            guard let record = UsageRecord(at: 0, of: bytes) else {
                throw StoreError(.damaged, "the record of a node's use is damaged; run `reelkv verify`")
            }
            return record
        }
    }

    private func putUsage(_ usage: UsageRecord, of hash: Digest, in transaction: borrowing WriteTransaction) throws {
        var bytes: [UInt8] = []
        bytes.append(usage)
        try usages.put(hash, bytes, in: transaction)
    }

    // MARK: - Uses

    /// Counts accesses that ended at a node. One that was evicted meanwhile is past caring.
    func recordUse(_ use: PageUse, of hash: Digest, in transaction: borrowing WriteTransaction) throws {
        guard let node = try node(hash, in: transaction) else { return }
        var usage = try usage(hash, in: transaction) ?? .unused(node.record)
        usage.add(use)
        usage.inflation = try inflation(in: transaction)
        if usage.isRanked { try unrank(&usage, of: node, hash: hash, in: transaction) }
        try putUsage(usage, of: hash, in: transaction)
        try updateRank(of: node, hash: hash, in: transaction)
    }

    /// Counts an access that ends at a node now.
    ///
    /// - Parameter together: how many nodes, up to this one, were stored for it.
    /// - Returns: the store's count of accesses.
    @discardableResult
    func countAccess(at hash: Digest, together: Int = 0, in transaction: borrowing WriteTransaction) throws -> UInt64 {
        var access: UInt64 = 0
        try updateCounters(in: transaction) { counters in
            counters.accesses += 1
            access = counters.accesses
        }
        let use = PageUse(count: 1, lastAccess: access, lastUsedSeconds: Platform.unixSeconds(), together: together)
        try recordUse(use, of: hash, in: transaction)
        return access
    }

    /// Gives a node that is stored anew what is remembered of it from before it was evicted.
    func remember(
        _ memory: EvictedNodes.Memory, of hash: Digest, in transaction: borrowing WriteTransaction
    ) throws {
        guard let node = try node(hash, in: transaction) else { return }
        var usage = try usage(hash, in: transaction) ?? .unused(node.record)
        usage.carriedUses = UInt16(clamping: memory.uses)
        if usage.lastAccess > memory.lastAccess { usage.gap = UInt32(clamping: usage.lastAccess - memory.lastAccess) }
        try putUsage(usage, of: hash, in: transaction)
    }

    /// An access that matched up to a node, and then appended more, ended in what it appended.
    func moveUse(from hash: Digest, in transaction: borrowing WriteTransaction) throws {
        guard var usage = try usage(hash, in: transaction), usage.uses > 0 else { return }
        usage.uses -= 1
        usage.isReplaceable = true
        try putUsage(usage, of: hash, in: transaction)
    }

    // MARK: - The order of eviction

    /// Keeps the order of eviction true to a node's reference counts: it holds those that have neither children nor pins.
    func updateRank(of node: Node, hash: Digest, in transaction: borrowing WriteTransaction) throws {
        let isEvictable = node.record.children == 0 && node.record.pins == 0
        let known = try usage(hash, in: transaction)
        guard isEvictable != (known?.isRanked ?? false) else { return }
        var usage = known ?? .unused(node.record)
        if isEvictable {
            try rank(&usage, of: node, hash: hash, in: transaction)
        } else {
            try unrank(&usage, of: node, hash: hash, in: transaction)
        }
        try putUsage(usage, of: hash, in: transaction)
    }

    /// Puts a node that may be evicted into its place, whatever its record of use says of one.
    func rankAnew(_ hash: Digest, in transaction: borrowing WriteTransaction) throws {
        guard let node = try node(hash, in: transaction) else { return }
        var usage = try usage(hash, in: transaction) ?? .unused(node.record)
        try rank(&usage, of: node, hash: hash, in: transaction)
        try putUsage(usage, of: hash, in: transaction)
    }

    private func rank(
        _ usage: inout UsageRecord, of node: Node, hash: Digest, in transaction: borrowing WriteTransaction
    ) throws {
        usage.rank = try evictionOrder(in: transaction).rank(usage, node, hash: hash)
        usage.isRanked = true
        let key = LeafKey(tenant: node.record.tenantId, rank: usage.rank, hash: hash)
        var value: [UInt8] = []
        value.appendLittleEndian(usage.lastUsedSeconds)
        try leaves.put(key.bytes, value, in: transaction)
    }

    private func unrank(
        _ usage: inout UsageRecord, of node: Node, hash: Digest, in transaction: borrowing WriteTransaction
    ) throws {
        _ = try leaves.delete(LeafKey(tenant: node.record.tenantId, rank: usage.rank, hash: hash).bytes, in: transaction)
        usage.rank = 0
        usage.isRanked = false
    }

    /// Forgets a node that is being removed. Its uses count for its parent from now on.
    func removeUsage(of node: Node, hash: Digest, in transaction: borrowing WriteTransaction) throws {
        guard var usage = try usage(hash, in: transaction) else { return }
        if usage.isRanked { try unrank(&usage, of: node, hash: hash, in: transaction) }
        _ = try usages.delete(hash, in: transaction)
        guard let parent = try self.node(node.record.parent, in: transaction) else { return }
        var parentUsage = try self.usage(node.record.parent, in: transaction) ?? .unused(parent.record)
        parentUsage.inherit(usage)
        try putUsage(parentUsage, of: node.record.parent, in: transaction)
    }

    /// Ranks all leaves anew, by another policy, which holds from then on.
    func rankAll(by policy: EvictionPolicy, in transaction: borrowing WriteTransaction) throws {
        var settings = try settings(in: transaction)
        settings.policy = policy.rawValue
        try putSettings(settings, in: transaction)
        var hashes: [Digest] = []
        try leaves.forEachRaw(in: .all, in: transaction) { key, _ in
            hashes.append(try LeafKey(bytes: key).hash)
            return .continue
        }
        for hash in hashes {
            guard let node = try node(hash, in: transaction), var usage = try usage(hash, in: transaction) else { continue }
            try unrank(&usage, of: node, hash: hash, in: transaction)
            try rank(&usage, of: node, hash: hash, in: transaction)
            try putUsage(usage, of: hash, in: transaction)
        }
    }
}

/// Accesses that ended at one node.
struct PageUse: Hashable, Sendable {
    var count: UInt32
    /// The store's count of accesses at the last one.
    var lastAccess: UInt64
    /// Unix time of the last one.
    var lastUsedSeconds: Int64
    /// The one before it, where it is known.
    var previousAccess: UInt64 = 0
    /// How many nodes, up to this one, were stored for the access; 0 when it stored none.
    var together = 0
}

extension UsageRecord {
    /// What is known of a node before it is used: when it was made.
    static func unused(_ node: NodeRecord) -> UsageRecord {
        UsageRecord(
            rank: 0, lastAccess: node.createdAccess, lastUsedSeconds: node.createdSeconds, uses: 0, ranked: 0,
            flags: replaceableFlag, together: 0, togetherLeft: 0, carriedUses: 0, gap: 0, inflation: 0)
    }

    var isRanked: Bool {
        get { ranked != 0 }
        set { ranked = newValue ? 1 : 0 }
    }

    private static let replaceableFlag: UInt8 = 1

    /// Whether the next access takes the last one's place: the last one was none, or went on to a child, from which it comes back when
    /// that is evicted.
    fileprivate var isReplaceable: Bool {
        get { flags & Self.replaceableFlag != 0 }
        set { flags = newValue ? flags | Self.replaceableFlag : flags & ~Self.replaceableFlag }
    }

    /// The access before the last; 0 when there was none.
    private var previousAccess: UInt64 { gap == 0 ? 0 : lastAccess - min(lastAccess, UInt64(gap)) }

    mutating func add(_ use: PageUse) {
        uses = uses.addingReportingOverflow(use.count).overflow ? .max : uses + use.count
        if use.previousAccess > 0 { note(use.previousAccess) }
        note(use.lastAccess)
        lastUsedSeconds = max(lastUsedSeconds, use.lastUsedSeconds)
        if use.together > 0 {
            together = UInt16(clamping: use.together)
            togetherLeft = together - 1
        }
    }

    /// Takes over what is known of a child that is being removed.
    fileprivate mutating func inherit(_ child: UsageRecord) {
        add(
            PageUse(
                count: child.uses, lastAccess: child.lastAccess, lastUsedSeconds: child.lastUsedSeconds,
                previousAccess: child.previousAccess))
        inflation = max(inflation, child.inflation)
        guard together == 0, child.togetherLeft > 0 else { return }
        together = child.together
        togetherLeft = child.togetherLeft - 1
    }

    private mutating func note(_ access: UInt64) {
        let previous = previousAccess
        if access > lastAccess {
            let before = isReplaceable ? previous : lastAccess
            gap = before > 0 ? UInt32(clamping: access - before) : 0
            lastAccess = access
            isReplaceable = false
        } else if access < lastAccess, access > previous {
            gap = UInt32(clamping: lastAccess - access)
        }
    }
}
