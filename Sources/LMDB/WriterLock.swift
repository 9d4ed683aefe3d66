import Synchronization

/// Lets one thread of this process write at a time, and notices a thread that would wait for itself.
///
/// LMDB's own lock, which serialises processes, is not recursive: a second write on the same thread would hang forever.
final class WriterLock: Sendable {
    private let monitor = Monitor()
    /// The thread that holds the lock. Only that thread ever finds itself here, so it need not hold the monitor to look.
    private let owner = Atomic(ThreadID.none.bits)

    var isHeldByCurrentThread: Bool { owner.load(ordering: .relaxed) == ThreadID.current.bits }

    /// - Throws: ``LMDBError/Code/busy`` where the calling thread holds the lock.
    func lock() throws {
        guard !isHeldByCurrentThread else {
            throw LMDBError(
                .busy,
                "this thread is inside a write of the same environment; pass its transaction on instead of beginning another")
        }
        monitor.lock()
        owner.store(ThreadID.current.bits, ordering: .relaxed)
    }

    func unlock() {
        owner.store(ThreadID.none.bits, ordering: .relaxed)
        monitor.unlock()
    }
}
