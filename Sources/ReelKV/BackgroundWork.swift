import Locking

/// One piece of work at a time on another thread, for one owner that waits for it before it begins the next.
///
/// What the work touches is the owner's again once ``wait()`` has returned, and what it alone held is let go of by then.
final class BackgroundWork {
    private var task: BackgroundTask?
    private let outcome = Outcome()

    private final class Outcome: Sendable {
        let failure = Mutex<(any Error)?>(nil)
    }

    /// Runs `body` on another thread, after what ran before.
    ///
    /// - Throws: what that threw, or `StoreError.inputOutput` where there is no thread; then `body` does not run.
    func begin(_ body: @escaping () throws -> Void) throws {
        try wait()
        task = try Workers.begin { [outcome] in
            do { try body() } catch { outcome.failure.withLock { $0 = error } }
        }
    }

    /// Waits until nothing runs.
    ///
    /// - Throws: what the work threw, once.
    func wait() throws {
        guard let task = task.take() else { return }
        task.wait()
        if let error = outcome.failure.withLock({ $0.take() }) { throw error }
    }

    deinit { try? wait() }
}
