import CReelKV
import LMDB
import ReelKV

/// A restore that goes on on another thread.
final class RestoreJob: HandleObject, @unchecked Sendable {
    static let noun = "a restore"

    /// What the thread and those that wait for it share.
    private final class Progress: @unchecked Sendable {
        let monitor = Monitor()
        /// Of the layers that are complete, the first token that each holds.
        var firstTokens: [Int] = []
        /// nil while it goes on.
        var outcome: Result<Void, any Error>?
        var isCancelled = false

        func change(_ body: () throws -> Void) rethrows {
            try monitor.withLock {
                try body()
                monitor.broadcast()
            }
        }
    }

    private let layers: Range<Int>
    private let progress = Progress()
    private let task: BackgroundTask

    /// Begins a restore.
    init(_ plan: RestorePlan) throws {
        layers = plan.layers
        task = try Workers.begin { [progress] in
            let outcome = Result {
                try plan.run { restored in
                    try progress.change {
                        if progress.isCancelled { throw Self.cancelled }
                        progress.firstTokens.append(restored.firstToken)
                    }
                }
            }
            progress.change { progress.outcome = outcome }
        }
    }

    private static let cancelled = Failure(REELKV_CANCELLED, "the restore was ended before it was complete")

    /// Waits until a layer of the model is complete.
    ///
    /// - Returns: the first of the tokens asked for that the layer holds.
    func wait(layer: Int) throws -> Int {
        guard layers.contains(layer) else {
            throw Failure.invalid("'layer' is \(layer), the restore is of layers \(layers)")
        }
        let index = layer - layers.lowerBound
        return try progress.monitor.withLock {
            while progress.firstTokens.count <= index {
                try progress.outcome?.get()
                progress.monitor.wait()
            }
            return progress.firstTokens[index]
        }
    }

    /// Ends the restore, complete or not. Nothing writes to the caller's memory afterwards.
    ///
    /// - Throws: what it has failed with, or `REELKV_CANCELLED`.
    func end() throws {
        progress.change { progress.isCancelled = true }
        task.wait()
        try progress.monitor.withLock { try progress.outcome?.get() }
    }
}
