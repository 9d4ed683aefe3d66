import Synchronization

/// Lets one thread of this process write at a time, and notices a thread that would wait for itself.
///
/// LMDB's own lock, which serialises processes, is not recursive: a second write on the same thread would hang forever.
final class WriterLock: Sendable {
    private let monitor = Monitor()
    /// The thread that holds the lock. Only that thread ever finds itself here, so it may look without the monitor's help.
    private let owner = Mutex(ThreadID.none)

    var isHeldByCurrentThread: Bool { owner.withLock { $0 == .current } }

    /// - Throws: ``LMDBError/Code/busy`` where the calling thread holds the lock.
    func lock() throws {
        guard !isHeldByCurrentThread else {
            throw LMDBError(
                .busy,
                "this thread is inside a write of the same environment; pass its transaction on instead of beginning another")
        }
        monitor.lock()
        owner.withLock { $0 = .current }
    }

    func unlock() {
        owner.withLock { $0 = .none }
        monitor.unlock()
    }
}
