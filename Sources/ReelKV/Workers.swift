import LMDB

/// The engine's threads. They stay when their work is done, for what comes next.
///
/// They are its own and not Dispatch's: a child process has none of its parent's threads, and Dispatch, which does not notice, has
/// whoever asks for one there wait for ever.
package enum Workers {
    private struct State {
        /// Says in which process the threads are.
        var forks = forkCount()
        var idle: [Worker] = []
        /// How many share work that would be done without them too.
        var helping = 0

        /// Threads of the process that this one was forked from are not here.
        mutating func forgetForeign() {
            if forks != forkCount() { self = State() }
        }
    }

    private static let state = Locked(State())
    /// More idle ones end.
    private static let idleMax = max(4, Platform.processorCount)
    /// All calls together keep no more threads busy with shared work than there are processors, but for those that they came on.
    private static let helpingMax = Platform.processorCount - 1

    /// Runs `body` on another thread.
    ///
    /// - Throws: `StoreError.inputOutput` where the system has no thread to give; `body` does not run then.
    package static func begin(_ body: @escaping () -> Void) throws -> BackgroundTask {
        let idle = state.withLock { state in
            state.forgetForeign()
            return state.idle.popLast()
        }
        let worker = try idle ?? Worker.start()
        let task = BackgroundTask(body)
        worker.give(task)
        return task
    }

    /// Calls `body` on this thread and on up to `count - 1` others at once, each time with another number below `count`, and returns when
    /// no call runs any more. Threads that come too late to find anything to do are not waited for: one call must do for all.
    static func share(_ count: Int, _ body: (_ worker: Int) -> Void) {
        let helpers = borrowHelpers(count - 1)
        defer { giveBackHelpers(helpers) }
        withoutActuallyEscaping(body) { body in
            nonisolated(unsafe) let body = body
            let tasks = (0..<helpers).compactMap { helper in try? begin { body(helper + 1) } }
            body(0)
            for task in tasks { task.retractOrWait() }
        }
    }

    private static func borrowHelpers(_ wanted: Int) -> Int {
        state.withLock { state in
            state.forgetForeign()
            let given = max(0, min(wanted, helpingMax - state.helping))
            state.helping += given
            return given
        }
    }

    private static func giveBackHelpers(_ count: Int) { state.withLock { $0.helping -= count } }

    /// Takes a thread back whose work is done.
    ///
    /// - Returns: false where it is to end.
    fileprivate static func keep(_ worker: Worker) -> Bool {
        state.withLock { state in
            guard state.idle.count < idleMax else { return false }
            state.idle.append(worker)
            return true
        }
    }
}

/// A thread, and what it is to do next.
private final class Worker: @unchecked Sendable {
    private let monitor = Monitor()
    private var next: BackgroundTask?

    static func start() throws -> Worker {
        let worker = Worker()
        try SystemThread.start { worker.run() }
        return worker
    }

    func give(_ task: BackgroundTask) {
        monitor.withLock { next = task }
        monitor.broadcast()
    }

    private func take() -> BackgroundTask {
        monitor.withLock {
            while true {
                if let task = next.take() { return task }
                monitor.wait()
            }
        }
    }

    private func run() {
        var isKept = true
        while isKept {
            let task = take()
            task.run()
            // Idle before anybody knows that the work is done: a process that is forked then must not find the lock taken.
            isKept = Workers.keep(self)
            task.finish()
        }
    }
}

/// Something that is done on another thread.
package final class BackgroundTask: @unchecked Sendable {
    private enum State {
        case waiting(() -> Void)
        case running, done
    }

    private let monitor = Monitor()
    private var state: State

    fileprivate init(_ body: @escaping () -> Void) { state = .waiting(body) }

    /// Runs it, unless it was retracted. It holds nothing any more when this returns.
    fileprivate func run() {
        let body: (() -> Void)? = monitor.withLock {
            guard case .waiting(let body) = state else { return nil }
            state = .running
            return body
        }
        body?()
    }

    fileprivate func finish() {
        monitor.withLock { state = .done }
        monitor.broadcast()
    }

    /// Waits until it is done. What it wrote can be read then.
    package func wait() {
        monitor.withLock { waitLocked() }
    }

    /// Waits so long at most.
    package func wait(seconds: Double) {
        let end = ContinuousClock.now + .seconds(seconds)
        monitor.withLock {
            while true {
                if case .done = state { return }
                guard monitor.wait(until: end) else { return }
            }
        }
    }

    package var isDone: Bool {
        monitor.withLock {
            if case .done = state { return true }
            return false
        }
    }

    /// Has it not done where it has not begun, and waits for its end where it has.
    fileprivate func retractOrWait() {
        monitor.withLock {
            if case .waiting = state { state = .done }
            waitLocked()
        }
    }

    private func waitLocked() {
        while true {
            if case .done = state { return }
            monitor.wait()
        }
    }
}
