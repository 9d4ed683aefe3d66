import CLMDB

/// The read transactions of one environment: those in use, those kept for reuse, and the gate before them.
///
/// Beginning a read transaction from nothing takes the reader table's lock, which all processes share; renewing one that was
/// reset does not. So ended transactions are kept, with their slot in the table.
///
/// Replacing the memory map pulls it away under every reader, so the one who does it closes the gate and waits until all have
/// left. A thread that is inside may enter again (a read within a read): were it to wait, it would wait for itself.
final class ReaderPool: @unchecked Sendable {
    /// One reader. Slots are made as concurrency demands and live as long as the pool.
    struct Slot {
        /// Reset and ready for renewal while the slot is idle; nil when it never began or was given up.
        var transaction: OpaquePointer?
        var owner = ThreadID.none
        var next: UnsafeMutablePointer<Slot>?
    }

    /// How many ended transactions keep their slot in the reader table. All processes share it, so idle ones must leave room for many.
    private static let idleTransactionLimit = 4

    private let monitor = Monitor()
    private var slots: [UnsafeMutablePointer<Slot>] = []
    private var idle: UnsafeMutablePointer<Slot>?
    private var idleTransactionCount = 0
    private var activeCount = 0
    private var isDraining = false
    private var isMapLost = false

    deinit {
        for slot in slots {
            slot.deinitialize(count: 1)
            slot.deallocate()
        }
    }

    /// Gives the slots in the reader table back, before the environment closes. No reader is left by then. A forked child must
    /// not call it: the table and the slots are its parent's.
    func close() {
        for slot in slots {
            if let transaction = slot.pointee.transaction { mdb_txn_abort(transaction) }
            slot.pointee.transaction = nil
        }
    }

    // MARK: - Entering and leaving

    /// Keeps the map in place until ``leave(_:)``, waiting while it is being replaced.
    func enter() throws -> UnsafeMutablePointer<Slot> {
        let thread = ThreadID.current
        monitor.lock()
        defer { monitor.unlock() }
        while isDraining && !isInside(thread) { monitor.wait() }
        guard !isMapLost else {
            throw LMDBError(.panic, "the memory map was lost when it could not be replaced; close the environment")
        }
        let slot = idle ?? makeSlot()
        idle = slot.pointee.next
        slot.pointee.next = nil
        slot.pointee.owner = thread
        if slot.pointee.transaction != nil { idleTransactionCount -= 1 }
        activeCount += 1
        return slot
    }

    /// Ends what ``enter()`` began. The slot's transaction, if any, must have been reset.
    func leave(_ slot: UnsafeMutablePointer<Slot>) {
        monitor.lock()
        defer { monitor.unlock() }
        slot.pointee.owner = .none
        if let transaction = slot.pointee.transaction {
            if idleTransactionCount < Self.idleTransactionLimit {
                idleTransactionCount += 1
            } else {
                mdb_txn_abort(transaction)
                slot.pointee.transaction = nil
            }
        }
        slot.pointee.next = idle
        idle = slot
        activeCount -= 1
        if isDraining && activeCount == 0 { monitor.broadcast() }
    }

    /// Gives the idle slots in the reader table back, for a reader of LMDB's own.
    func releaseIdle() {
        monitor.withLock {
            var slot = idle
            while let current = slot {
                if let transaction = current.pointee.transaction { mdb_txn_abort(transaction) }
                current.pointee.transaction = nil
                slot = current.pointee.next
            }
            idleTransactionCount = 0
        }
    }

    /// Whether the calling thread reads right now.
    func isCurrentThreadInside() -> Bool {
        monitor.withLock { isInside(ThreadID.current) }
    }

    private func isInside(_ thread: ThreadID) -> Bool {
        slots.contains { $0.pointee.owner == thread }
    }

    private func makeSlot() -> UnsafeMutablePointer<Slot> {
        let slot = UnsafeMutablePointer<Slot>.allocate(capacity: 1)
        slot.initialize(to: Slot())
        slots.append(slot)
        return slot
    }

    // MARK: - Replacing the map

    /// Waits until no reader is left and runs `replaceMap` while none can enter. Callers hold the writer's lock, so there is
    /// one of them at a time.
    ///
    /// - Parameter replaceMap: whether the map is still there afterwards; or throws, and left it as it was.
    func drain(_ replaceMap: () throws -> Bool) throws {
        monitor.lock()
        guard !isInside(ThreadID.current) else {
            monitor.unlock()
            throw LMDBError(
                .busy, "the memory map must grow, and this thread is inside a read of the same environment; write outside of it")
        }
        isDraining = true
        while activeCount > 0 { monitor.wait() }
        monitor.unlock()

        let outcome = Result { try replaceMap() }

        monitor.lock()
        isDraining = false
        if case .success(false) = outcome { isMapLost = true }
        monitor.broadcast()
        monitor.unlock()
        guard try outcome.get() else {
            throw LMDBError(.panic, "the memory map was lost when it could not be replaced; close the environment")
        }
    }
}
