import LMDB
import Locking

/// Writes down the uses that this process has seen, on another thread: whoever looks something up or closes the store does not wait for
/// another process's write, which may take long, or be stopped in its middle.
final class UsageWriter: Sendable {
    private let index: Index
    private let task = Mutex<BackgroundTask?>(nil)

    /// Seconds that closing a store waits at most. What is not written by then may be as long as the process lives.
    private static let closingSeconds = 2.0

    init(_ index: Index) { self.index = index }

    /// Begins to write what was gathered, unless that is being done already. What cannot be written is kept for the next time.
    func begin(_ log: UsageLog) {
        task.withLock { [index] task in
            if let task, !task.isDone { return }
            task = try? Workers.begin {
                guard let batch = log.take() else { return }
                do { try index.environment.write { try index.record(batch, in: $0) } } catch { log.putBack(batch) }
            }
        }
    }

    /// Writes the last uses, and what was learned from them.
    func end(_ batch: UsageBatch?) {
        guard batch != nil || index.evictionMemory.hasLearned else { return }
        let last = try? Workers.begin { [index] in
            try? index.environment.write { transaction in
                if let batch { try index.record(batch, in: transaction) }
                try index.saveMemory(ifDue: false, in: transaction)
            }
        }
        last?.wait(seconds: Self.closingSeconds)
    }
}
