import Dispatch
import Synchronization

/// One piece of work at a time on another thread, for one owner that waits for it before it begins the next.
///
/// What the work touches is the owner's again once ``wait()`` has returned.
final class BackgroundWork {
    private let queue: DispatchQueue
    private let outcome = Outcome()
    private var isRunning = false

    private final class Outcome: Sendable {
        let failure = Mutex<(any Error)?>(nil)
        let done = DispatchSemaphore(value: 0)
    }

    /// What it holds is let go before its owner is told that it has run.
    private final class Work: @unchecked Sendable {
        private var body: (() throws -> Void)?

        init(_ body: @escaping () throws -> Void) { self.body = body }

        func run() throws {
            defer { body = nil }
            try body?()
        }
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
        let work = Work(body)
        queue.async { [outcome] in
            do { try work.run() } catch { outcome.failure.withLock { $0 = error } }
            outcome.done.signal()
        }
    }

    /// Waits until nothing runs.
    ///
    /// - Throws: what the work threw, once.
    func wait() throws {
        guard isRunning else { return }
        outcome.done.wait()
        isRunning = false
        if let error = outcome.failure.withLock({ $0.take() }) { throw error }
    }

    deinit { try? wait() }
}
