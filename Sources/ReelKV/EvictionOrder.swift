import KVCodec
import LMDB

/// Ranks leaves: the lowest goes first. A rank is computed when a node is used or becomes a leaf, and stands until the next time.
struct EvictionOrder {
    let policy: EvictionPolicy
    let learned: EvictionRecord

    func rank(_ usage: UsageRecord, _ node: Node) -> UInt64 {
        switch policy {
        case .lru: usage.lastAccess
        case .fifo: node.record.createdAccess
        case .lfu, .cost, .adaptive: usage.lastAccess
        }
    }
}

extension Index {
    private static let evictionKey = "eviction"

    func evictionOrder(in transaction: borrowing some Transaction & ~Copyable) throws -> EvictionOrder {
        guard let policy = EvictionPolicy(rawValue: try settings(in: transaction).policy) else {
            throw StoreError(.damaged, "the store's settings name a policy that this ReelKV does not know")
        }
        let learned: EvictionRecord? = try fixedRecord(Self.evictionKey, in: transaction)
        return EvictionOrder(policy: policy, learned: learned ?? EvictionRecord(inflation: 0, meanAge: 0))
    }

    /// Lets the policy learn from an eviction.
    func noteEviction(of node: Node, hash: Digest, in transaction: borrowing WriteTransaction) throws {
    }
}
