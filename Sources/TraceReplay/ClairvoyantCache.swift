/// The hits of a cache that knows the future (Belady's): it evicts leaf first like the others, always the leaf whose next use is furthest,
/// and does not store what is used later than that.
package enum ClairvoyantCache {
    /// - Parameter capacity: blocks.
    /// - Returns: blocks hit, by prefixes.
    package static func hits(of trace: Trace, capacity: Int) -> Int {
        var cache = Cache(trace, capacity: max(1, capacity))
        return trace.requests.indices.reduce(0) { $0 + cache.run($1) }
    }

    private struct Cache {
        let trace: Trace
        let capacity: Int
        /// By request and position in it: the next request with the same block.
        private let nextUses: [[Int32]]
        private var isStored: [Bool]
        private var children: [Int32]
        /// By block, the next request after the last one so far.
        private var next: [Int32]
        /// The request that a block was last part of.
        private var usedBy: [Int32]
        private var stored = 0
        private var leaves = Heap()

        init(_ trace: Trace, capacity: Int) {
            self.trace = trace
            self.capacity = capacity
            nextUses = Self.nextUses(trace)
            isStored = Array(repeating: false, count: trace.distinctBlocks)
            children = Array(repeating: 0, count: trace.distinctBlocks)
            next = Array(repeating: .max, count: trace.distinctBlocks)
            usedBy = Array(repeating: -1, count: trace.distinctBlocks)
        }

        private static func nextUses(_ trace: Trace) -> [[Int32]] {
            var upcoming = [Int32](repeating: .max, count: trace.distinctBlocks)
            var all = [[Int32]](repeating: [], count: trace.requests.count)
            for request in trace.requests.indices.reversed() {
                let blocks = trace.requests[request].blocks
                all[request] = blocks.map { upcoming[$0] }
                for block in blocks { upcoming[block] = Int32(request) }
            }
            return all
        }

        mutating func run(_ request: Int) -> Int {
            let blocks = trace.requests[request].blocks
            let hits = blocks.firstIndex { !isStored[$0] } ?? blocks.count
            for (block, use) in zip(blocks, nextUses[request]) {
                next[block] = use
                usedBy[block] = Int32(request)
            }
            if hits > 0, hits == blocks.count || children[blocks[hits - 1]] == 0 { offer(blocks[hits - 1]) }
            for position in hits..<blocks.count {
                let block = blocks[position]
                while stored >= capacity { guard evict(for: block, during: request) else { return hits } }
                isStored[block] = true
                stored += 1
                if trace.parents[block] >= 0 { children[trace.parents[block]] += 1 }
                offer(block)
            }
            return hits
        }

        /// Puts a block among those that may go, if it is a leaf.
        private mutating func offer(_ block: Int) {
            guard children[block] == 0 else { return }
            leaves.push(Leaf(next: next[block], depth: Int32(trace.depths[block]), block: block))
        }

        /// - Returns: false when nothing is used later than the block that room is made for: it is not worth storing then, nor what follows it.
        private mutating func evict(for block: Int, during request: Int) -> Bool {
            var held: [Leaf] = []
            defer { for leaf in held { leaves.push(leaf) } }
            while let leaf = leaves.pop() {
                // what was used since, or has children, stands elsewhere by now
                guard isStored[leaf.block], children[leaf.block] == 0, next[leaf.block] == leaf.next else { continue }
                if usedBy[leaf.block] == request {
                    held.append(leaf)
                    continue
                }
                guard leaf.next > next[block] else {
                    held.append(leaf)
                    return false
                }
                isStored[leaf.block] = false
                stored -= 1
                let parent = trace.parents[leaf.block]
                if parent >= 0 {
                    children[parent] -= 1
                    offer(parent)
                }
                return true
            }
            return false
        }
    }

    private struct Leaf {
        var next: Int32
        var depth: Int32
        var block: Int

        func goesBefore(_ other: Leaf) -> Bool {
            (next, depth, other.block) > (other.next, other.depth, block)
        }
    }

    private struct Heap {
        private var leaves: [Leaf] = []

        mutating func push(_ leaf: Leaf) {
            leaves.append(leaf)
            var place = leaves.count - 1
            while place > 0, leaves[place].goesBefore(leaves[(place - 1) / 2]) {
                leaves.swapAt(place, (place - 1) / 2)
                place = (place - 1) / 2
            }
        }

        mutating func pop() -> Leaf? {
            guard let first = leaves.first, let last = leaves.popLast() else { return nil }
            if leaves.isEmpty { return first }
            leaves[0] = last
            var place = 0
            while true {
                var top = place
                for child in [2 * place + 1, 2 * place + 2] where child < leaves.count {
                    if leaves[child].goesBefore(leaves[top]) { top = child }
                }
                if top == place { return first }
                leaves.swapAt(place, top)
                place = top
            }
        }
    }
}
