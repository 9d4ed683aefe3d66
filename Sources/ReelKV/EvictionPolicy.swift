/// What is evicted first. Whatever the policy, a page goes before those that it hangs on, so that prefixes stay whole; what is
/// pinned, being written or leased does not go at all.
public enum EvictionPolicy: UInt8, Hashable, Sendable, CaseIterable {
    /// What is least likely to be used again for the time it would be held, as the store learns from how pages come back that are used as
    /// often, as regularly, or were stored with as many others. Where that does not get more hits than `lru`, it is `lru`.
    case adaptive = 0
    /// What was unused for longest.
    case lru = 1
    /// What was used least often of late, by a sketch that knows evicted pages too (TinyLFU). What is used now counts from what was
    /// evicted last, so that old fame fades.
    case lfu = 2
    /// What is cheapest to compute again, per stored byte, weighed by how often it is used (GreedyDual-Size with frequency). Tokens cost more
    /// the more stand before them, and twice as much where a page holds media.
    case cost = 3
    /// What was stored first.
    case fifo = 4

    /// `adaptive`, `lru`, `lfu`, `cost` or `fifo`.
    public var name: String {
        switch self {
        case .adaptive: "adaptive"
        case .lru: "lru"
        case .lfu: "lfu"
        case .cost: "cost"
        case .fifo: "fifo"
        }
    }

    public init?(name: String) {
        guard let policy = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = policy
    }
}
