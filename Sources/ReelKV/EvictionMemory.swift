import KVCodec
import Locking

/// What this process remembers for the policies `adaptive` and `lfu`: how nodes come back that were used, whether they are stored or were
/// evicted. Everything follows from the sequence of uses alone, so that the same sequence leads to the same evictions.
///
/// Bounded whatever the store's size: some 4 MB for the sample, 4 MiB for evicted nodes, 1 MiB for frequencies, made when needed. The tables and
/// frequencies are kept in the index; of several processes, the last one to write them wins. The rest is forgotten with the process.
///
/// Does not know the index.
final class EvictionMemory: Sendable {
    fileprivate struct State {
        var policy = EvictionPolicy.adaptive
        /// The store's count of accesses, as far as this process knows: with those of its own that were not written down yet.
        var clock: UInt64 = 0
        var nodes = 0
        var tables = ReturnTables()
        var sampler = ReturnSampler()
        var evicted = EvictedNodes()
        var sketch = FrequencySketch()
        /// Hits that `lru` would not have had, less those that only it would have had: pages, a sum that fades.
        var advantage = 0.0
        var outlook = Outlook()
        var outlookAt: UInt64?
        var savedAt: UInt64 = 0
    }

    /// A node on the path of an access.
    struct PathNode {
        var hash: Digest
        var isTail: Bool
    }

    private let state = Mutex(State())

    /// Accesses after which what a node is worth is computed anew, and after which tables are written down.
    private static let outlookPeriod: UInt64 = 200
    private static let savePeriod: UInt64 = 8_192
    /// Page uses, as a multiple of the nodes stored, in which the advantage over `lru` fades to 1/e.
    fileprivate static let advantageMemory = 8.0

    // MARK: - Uses

    /// Notes a look-up, or another access, that ended at the last node of a path.
    ///
    /// - Parameter missing: nodes that would have gone on, had they been stored.
    func note(path: [PathNode], missing: Int) {
        state.withLock { state in
            state.clock += 1
            state.note(path, together: max(1, missing), areStored: true)
        }
    }

    /// Notes that nodes were stored.
    ///
    /// - Parameters:
    ///   - before: those that they hang on.
    ///   - access: the store's count of accesses.
    func note(stored: [PathNode], after before: [PathNode], access: UInt64) {
        state.withLock { state in
            state.clock = max(state.clock, access)
            state.note(stored, together: stored.count, areStored: false)
            // a prefix is never older than what hangs on it
            guard state.policy == .adaptive else { return }
            for node in before.reversed() { state.sampler.refresh(node.hash.firstWord) }
        }
    }

    /// - Parameters:
    ///   - accesses: the store's count of them.
    ///   - nodes: how many the store holds.
    func synchronize(policy: EvictionPolicy, accesses: UInt64, nodes: Int) {
        state.withLock { state in
            state.policy = policy
            state.clock = max(state.clock, accesses)
            state.fit(to: nodes)
        }
    }

    // MARK: - Evicted nodes

    func noteEviction(of hash: Digest, uses: Int, lastAccess: UInt64) {
        state.withLock { $0.evicted.note(hash.firstWord, uses: uses, lastAccess: lastAccess) }
    }

    /// What is remembered of a node from before it was evicted.
    func memory(of hash: Digest) -> EvictedNodes.Memory? { state.withLock { $0.evicted.memory(of: hash.firstWord) } }

    // MARK: - What is worth keeping

    /// How often a node was used of late, up to 15.
    func frequency(of hash: Digest) -> UInt8 { state.withLock { $0.sketch.count(hash.firstWord) } }

    /// What nodes are worth now.
    func outlook() -> Outlook {
        state.withLock { state in
            if let at = state.outlookAt, state.clock - at < Self.outlookPeriod {
                state.outlook.setKeeping(state.advantage / Double(max(1, state.nodes)))
                return state.outlook
            }
            state.tables.fade()
            state.outlook = Outlook(worth: state.tables.worth(waiting: state.sampler.waiting(at: state.clock)))
            state.outlook.setKeeping(state.advantage / Double(max(1, state.nodes)))
            state.outlookAt = state.clock
            return state.outlook
        }
    }

    // MARK: - On the disk

    /// What to write down of it; nil when nothing was learned.
    ///
    /// - Parameter isDue: whether only when it is time to.
    func saved(ifDue isDue: Bool) -> (tables: [UInt8]?, frequencies: [UInt8]?)? {
        state.withLock { state -> (tables: [UInt8]?, frequencies: [UInt8]?)? in
            guard state.clock > state.savedAt + (isDue ? Self.savePeriod : 0) else { return nil }
            state.savedAt = state.clock
            switch state.policy {
            case .adaptive:
                let waiting = state.sampler.waiting(at: state.clock)
                return (state.tables.encoded(advantage: state.advantage, waiting: waiting), nil)
            case .lfu: return (nil, state.sketch.encoded)
            case .lru, .cost, .fifo: return nil
            }
        }
    }

    /// Takes up what was written down. What is damaged is ignored.
    func load(tables: UnsafeRawBufferPointer) {
        guard let (tables, advantage) = ReturnTables.decode(tables) else { return }
        state.withLock { state in
            state.tables = tables
            state.advantage = advantage
            state.outlookAt = nil
        }
    }

    func load(frequencies: UnsafeRawBufferPointer) {
        guard let sketch = FrequencySketch(bytes: frequencies) else { return }
        state.withLock { $0.sketch = sketch }
    }

    /// Whether there is anything to write down.
    var hasLearned: Bool { state.withLock { $0.clock > $0.savedAt } }

    /// What was loaded need not be written again.
    func beginSaving(at accesses: UInt64) { state.withLock { $0.savedAt = max($0.savedAt, accesses) } }
}

extension EvictionMemory.State {
    fileprivate mutating func fit(to nodes: Int) {
        self.nodes = nodes
        switch policy {
        case .adaptive:
            sampler.fit(to: nodes)
            evicted.fit(to: nodes)
        case .lfu: sketch.fit(to: nodes)
        case .lru, .cost, .fifo: break
        }
    }

    /// The deepest first, because that is how prefixes age.
    fileprivate mutating func note(_ path: [EvictionMemory.PathNode], together: Int, areStored: Bool) {
        switch policy {
        case .adaptive:
            advantage *= fading(by: path.count)
            for node in path.reversed() { noteReturn(of: node, together: together, isStored: areStored) }
            sampler.fit(to: nodes)
            sampler.trim { [clock] in tables.noteLoss(of: $0.reuseClass, at: clock - min(clock, $0.lastAccess)) }
        case .lfu: for node in path { sketch.add(node.hash.firstWord) }
        case .lru, .cost, .fifo: break
        }
    }

    private func fading(by uses: Int) -> Double {
        // what the exponential function is for such small numbers, the same on every machine
        1 / (1 + Double(uses) / (EvictionMemory.advantageMemory * Double(max(1, nodes))))
    }

    private mutating func noteReturn(of node: EvictionMemory.PathNode, together: Int, isStored: Bool) {
        let key = node.hash.firstWord
        guard sampler.isSampled(key) else { return }
        let before = sampler.use(key, at: clock) { uses, gap in
            ReturnClass.of(isTail: node.isTail, uses: uses, gap: gap, together: together)
        }
        guard let before else { return }
        tables.noteReturn(of: before.reuseClass, after: clock - min(clock, before.lastAccess))
        if before.isHeld != isStored { advantage += (isStored ? 1 : -1) * Double(sampler.mask + 1) }
    }
}

/// What nodes are worth, by class and age, and how far that is to be trusted.
struct Outlook: Sendable {
    /// `ReturnTables.worth`.
    private var worth: [Double] = []
    /// The least of the younger bins of the class.
    private var leastYounger: [Double] = []
    /// Evicts another leaf than the one unused for longest where it is worth less than so many times as much.
    private(set) var keeping = 0.0

    init() {}

    init(worth: [Double]) {
        self.worth = worth
        leastYounger = worth
        for first in stride(from: 0, to: worth.count, by: AgeBin.count) {
            var least = Double.infinity
            for bin in 0..<AgeBin.count {
                leastYounger[first + bin] = least
                least = min(least, worth[first + bin])
            }
        }
    }

    func worth(_ reuseClass: UInt8, bin: Int) -> Double { worth[Int(reuseClass) * AgeBin.count + bin] }

    func leastYounger(_ reuseClass: UInt8, than bin: Int) -> Double { leastYounger[Int(reuseClass) * AgeBin.count + bin] }

    /// Follows `lru` closely at first, and leaves it further the more that has paid; where it has cost hits, not at all.
    ///
    /// - Parameter advantage: hits more than `lru` would have had, per node stored.
    mutating func setKeeping(_ advantage: Double) {
        let gain = advantage / 0.03
        keeping = gain > 0 ? 0.1 + 0.5 * min(1, gain) : 0.1 * max(0, 1 + 2 * gain)
    }
}
