import KVCodec
package import ReelKV

/// A trace run through the engine's index, with pages that have no images.
package enum Replay {
    package struct Outcome: Sendable {
        /// Blocks hit, by prefixes.
        package var hits = 0
        package var evictions = 0
        package var duration = Duration.zero
    }

    /// - Parameters:
    ///   - folder: where a store is made; it must not exist.
    ///   - capacity: blocks.
    ///   - progress: is told of every request.
    package static func run(
        _ trace: Trace, policy: EvictionPolicy, capacity: Int, in folder: String, progress: () -> Void = {}
    ) throws -> Outcome {
        let store = try ReplayStore(at: folder, policy: policy, capacity: capacity)
        var outcome = Outcome()
        let start = ContinuousClock.now
        for request in trace.requests {
            if !request.blocks.isEmpty { outcome.hits += try store.replay(try tokens(of: request, in: trace)) }
            progress()
        }
        outcome.duration = ContinuousClock.now - start
        outcome.evictions = store.evictions
        return outcome
    }

    /// A page for each block, its tokens derived from the block's id.
    private static func tokens(of request: Trace.Request, in trace: Trace) throws -> TokenSequence {
        var ids: [Int32] = []
        ids.reserveCapacity(request.blocks.count * ReplayStore.pageTokens)
        for block in request.blocks {
            var random = SplitMix64(seed: UInt64(bitPattern: trace.ids[block]))
            let count = trace.isPartial[block] ? ReplayStore.pageTokens / 2 : ReplayStore.pageTokens
            for _ in 0..<count { ids.append(Int32(random.next() >> 33)) }
        }
        return try TokenSequence(ids: ids)
    }
}
