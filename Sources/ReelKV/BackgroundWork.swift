import Dispatch
import Synchronization

/// One piece of work at a time on another thread, for one owner that waits for it before it begins the next.
///
/// What the work touches is the owner's again once ``wait()`` has returned, and what it alone held is let go of by then.
final class BackgroundWork {
    private let queue: DispatchQueue
    private let job = Job()
    private var isRunning = false

    private final class Job: @unchecked Sendable {  // one thread at a time: the owner's until it is queued, then the queue's
        var body: (() throws -> Void)?
        let failure = Mutex<(any Error)?>(nil)
        let done = DispatchSemaphore(value: 0)

        func run() {
            do { try runBody() } catch { failure.withLock { $0 = error } }
            done.signal()
        }

        /// Lets go of the work when it returns. The queue lets go of its own closure some time after the owner has been told.
        private func runBody() throws { try body.take()?() }
    }

    init(label: String) {
        queue = DispatchQueue(label: label, qos: .userInitiated)
    }

    /// Runs `body` on another thread, after what ran before.
    ///
    /// - Throws: what that threw; then `body` does not run.
    func begin(_ body: @escaping () throws -> Void) throws {
        try wait()
        isRunning = true
        job.body = body
        queue.async { [job] in job.run() }
    }

    /// Waits until nothing runs.
    ///
    /// - Throws: what the work threw, once.
    func wait() throws {
        guard isRunning else { return }
        job.done.wait()
        isRunning = false
        if let error = job.failure.withLock({ $0.take() }) { throw error }
    }

    deinit { try? wait() }
}
