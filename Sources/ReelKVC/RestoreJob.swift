import CReelKV
import Dispatch
import ReelKV
import Synchronization

/// A restore that goes on on a thread of its own.
///
/// Not on one of Dispatch's: they are a bounded number, and a restore waits for others of them.
final class RestoreJob: HandleObject {
    static let noun = "a restore"

    private struct State {
        /// Of the layers that are complete, the first token that each holds.
        var firstTokens: [Int] = []
        var outcome: Result<Void, any Error>?
        var isCancelled = false
        /// Of threads that wait for a change of this.
        var waiting: [DispatchSemaphore] = []

        mutating func add(_ restored: RestoredLayer) throws {
            if isCancelled { throw Failure(REELKV_CANCELLED, "the restore was ended before it was complete") }
            firstTokens.append(restored.firstToken)
        }
    }

    private let plan: RestorePlan
    private let state = Mutex(State())
    private let thread = Mutex<JoinableThread?>(nil)

    private init(_ plan: RestorePlan) { self.plan = plan }

    /// Begins a restore.
    static func begin(_ plan: RestorePlan) throws -> RestoreJob {
        let job = RestoreJob(plan)
        let thread = try JoinableThread { [job] in job.run() }
        job.thread.withLock { $0 = thread }
        return job
    }

    private func run() {
        let outcome = Result {
            try plan.run { restored in try self.change { try $0.add(restored) } }
        }
        change { $0.outcome = outcome }
    }

    /// Changes the state, and wakes who waits for it.
    private func change(_ body: (inout State) throws -> Void) rethrows {
        let waiting = try state.withLock { state in
            try body(&state)
            defer { state.waiting = [] }
            return state.waiting
        }
        for semaphore in waiting { semaphore.signal() }
    }

    /// Waits until `answer` has one.
    private func wait<Answer>(for answer: (borrowing State) throws -> Answer?) rethrows -> Answer {
        while true {
            let semaphore = DispatchSemaphore(value: 0)
            let found = try state.withLock { state in
                let found = try answer(state)
                if found == nil { state.waiting.append(semaphore) }
                return found
            }
            if let found { return found }
            semaphore.wait()
        }
    }

    /// Waits until a layer of the model is complete.
    ///
    /// - Returns: the first of the tokens asked for that the layer holds.
    func wait(layer: Int) throws -> Int {
        guard plan.layers.contains(layer) else {
            throw Failure.invalid("'layer' is \(layer), the restore is of layers \(plan.layers)")
        }
        return try wait { state in
            let index = layer - plan.layers.lowerBound
            if index < state.firstTokens.count { return state.firstTokens[index] }
            try state.outcome?.get()
            return nil
        }
    }

    /// Ends the restore, complete or not. Nothing writes to the caller's memory afterwards.
    ///
    /// - Throws: what it has failed with, or `REELKV_CANCELLED`.
    func end() throws {
        change { $0.isCancelled = true }
        let outcome = wait { $0.outcome }
        thread.withLock { $0.take() }?.join()
        try outcome.get()
    }
}
