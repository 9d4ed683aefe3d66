import KVCodec
import LMDB

/// Ranks leaves: the lowest goes first. A rank is computed when a node is used or becomes a leaf, and stands until the next time.
///
/// `adaptive` ranks in two steps: the first byte of a rank is the node's class (`ReturnClass`), the rest the order within it, and
/// `Index.victim` compares the first leaves of each class and age.
struct EvictionOrder {
    let policy: EvictionPolicy
    /// The policies `cost` and `lfu`: what the last evicted node was worth by its rank. What is used now starts from there, so that
    /// what was dear or used often once does not stay for ever.
    let inflation: Double
    let memory: EvictionMemory

    func rank(_ usage: UsageRecord, _ node: Node, hash: Digest) -> UInt64 {
        switch policy {
        case .lru: usage.lastAccess
        case .fifo: node.record.createdAccess
        case .lfu: frequencyRank(usage, memory.frequency(of: hash))
        case .cost: (usage.inflation + value(usage, node)).bitPattern
        case .adaptive: UInt64(reuseClass(usage, node)) << Self.orderBits | order(usage, node)
        }
    }

    private static let orderBits: UInt64 = 56
    private static let depthBits: UInt64 = 16
    private static let depthMax: UInt64 = 1 << depthBits - 1

    private static let accessBits: UInt64 = 40
    private static let accessMask: UInt64 = 1 << accessBits - 1

    private func frequencyRank(_ usage: UsageRecord, _ frequency: UInt8) -> UInt64 {
        let level = min(max(0, usage.inflation) + Double(frequency), Double(1 << 24 - 1))
        return UInt64(level) << Self.accessBits | (usage.lastAccess & Self.accessMask)
    }

    /// By the last use, deeper ones first.
    private func order(_ usage: UsageRecord, _ node: Node) -> UInt64 {
        let depth = min(UInt64(node.firstOwnToken / 32), Self.depthMax)
        return (usage.lastAccess << Self.depthBits | (Self.depthMax - depth)) & (1 << Self.orderBits - 1)
    }

    private func reuseClass(_ usage: UsageRecord, _ node: Node) -> UInt8 {
        ReturnClass.of(
            isTail: node.kind == .piece, uses: Int(usage.uses) + Int(usage.carriedUses), gap: UInt64(usage.gap),
            together: Int(usage.together))
    }

    /// What it would cost to compute a node again, per stored byte, times its uses: uses × √(c / s), where
    /// - c is the cost of one of its tokens: 1 for what every token costs, and 1 more for each 4,096 tokens before it, which attention looks at;
    ///   the double where the node holds media, since a vision encoder ran for them too;
    /// - s is the stored bytes per token, in KiB.
    /// The root, because costs differ more than the value of keeping them does: one deep page should not outlive hundreds of shallow ones.
    private func value(_ usage: UsageRecord, _ node: Node) -> Double {
        var cost = 1 + Double(node.firstOwnToken) / 4_096
        if node.hasMedia { cost *= 2 }
        let bytes = node.encodings.reduce(0) { $0 + Double($1.imageBytes) }
        let size = max(1, bytes) / 1_024 / Double(max(1, node.ownTokens))
        return Double(max(1, usage.uses)) * (cost / size).squareRoot()
    }
}

extension EvictionOrder {
    /// The class, by the rank of the policy `adaptive`.
    static func reuseClass(of rank: UInt64) -> UInt8 { UInt8(rank >> orderBits) }

    /// The last access, likewise.
    static func lastAccess(of rank: UInt64) -> UInt64 { order(of: rank) >> depthBits }

    /// What a node is worth, by the rank of the policy `lfu`.
    static func level(of rank: UInt64) -> Double { Double(rank >> accessBits) }

    /// The order within the class: by last access, deeper first.
    static func order(of rank: UInt64) -> UInt64 { rank & (1 << orderBits - 1) }

    /// The lowest rank of a class, from a last access on.
    static func rank(_ reuseClass: UInt8, usedSince access: UInt64) -> UInt64 {
        UInt64(reuseClass) << orderBits | (access << depthBits) & (1 << orderBits - 1)
    }
}

extension Index {
    private static let evictionKey = "eviction"

    func evictionPolicy(in transaction: borrowing some Transaction & ~Copyable) throws -> EvictionPolicy {
        guard let policy = EvictionPolicy(rawValue: try settings(in: transaction).policy) else {
            throw StoreError(.damaged, "the store's settings name a policy that this ReelKV does not know")
        }
        return policy
    }

    func evictionOrder(in transaction: borrowing some Transaction & ~Copyable) throws -> EvictionOrder {
        EvictionOrder(
            policy: try evictionPolicy(in: transaction), inflation: try inflation(in: transaction), memory: evictionMemory)
    }

    func inflation(in transaction: borrowing some Transaction & ~Copyable) throws -> Double {
        let learned: EvictionRecord? = try fixedRecord(Self.evictionKey, in: transaction)
        guard let inflation = learned?.inflation, inflation.isFinite, inflation >= 0 else { return 0 }
        return inflation
    }

    /// Lets the policy learn from an eviction.
    func noteEviction(_ leaf: LeafKey, in transaction: borrowing WriteTransaction) throws {
        switch try evictionPolicy(in: transaction) {
        case .adaptive:
            guard let usage = try usage(leaf.hash, in: transaction) else { return }
            evictionMemory.noteEviction(
                of: leaf.hash, uses: Int(usage.uses) + Int(usage.carriedUses), lastAccess: usage.lastAccess)
        case .cost: try inflate(to: Double(bitPattern: leaf.rank), in: transaction)
        case .lfu: try inflate(to: EvictionOrder.level(of: leaf.rank), in: transaction)
        case .lru, .fifo: break
        }
    }

    private func inflate(to worth: Double, in transaction: borrowing WriteTransaction) throws {
        guard worth.isFinite, worth > (try inflation(in: transaction)) else { return }
        try putFixedRecord(Self.evictionKey, EvictionRecord(inflation: worth), in: transaction)
    }
}
