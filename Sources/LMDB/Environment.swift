import CLMDB
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One LMDB file, opened: a set of ordered key-value databases with one writer and any number of readers.
///
/// There is one instance per file and process, shared by all who open it and closed when the last reference goes. Reads and
/// writes are synchronous closures; reads run concurrently with each other and with the writer, in any thread:
///
///     let environment = try Environment.open(at: "index.mdb", configuration: .init())
///     let names = try environment.database(named: "names", keys: BigEndianUInt64.self, values: UTF8String.self, creating: true)
///     try environment.write { try names.put(7, "seven", in: $0) }
///     let name = try environment.read { try names.get(7, in: $0) }
public final class Environment: Sendable {
    /// The file's path, absolute and free of symbolic links.
    public let path: String

    /// What the environment was opened with.
    public let configuration: Configuration

    let identity: FileIdentity
    let generation: Int
    @usableFromInline nonisolated(unsafe) let handle: OpaquePointer
    let readers = ReaderPool()
    let writerLock = WriterLock()
    /// Guarded by `writerLock`.
    nonisolated(unsafe) let writeState: UnsafeMutablePointer<WriteState>
    /// Handles of the databases opened so far; the unnamed one goes by nil.
    let databases = Locked<[String?: MDB_dbi]>([:])

    /// Takes over an open LMDB environment.
    init(handle: OpaquePointer, path: String, configuration: Configuration, identity: FileIdentity, generation: Int) {
        self.handle = handle
        self.path = path
        self.configuration = configuration
        self.identity = identity
        self.generation = generation
        writeState = .allocate(capacity: 1)
        writeState.initialize(to: WriteState())
    }

    deinit {
        writeState.deinitialize(count: 1)
        writeState.deallocate()
        // In a forked child, handle and lock file belong to the parent; all a child may do is to forget them.
        guard generation == forkGeneration.load(ordering: .relaxed) else { return }
        EnvironmentRegistry.shared.close(identity) { [readers, handle] in
            readers.close()
            mdb_env_close(handle)
        }
    }

    /// - Throws: ``LMDBError/Code/usedAfterFork`` in a process forked from the one that opened the environment.
    func checkProcess() throws {
        guard generation == forkGeneration.load(ordering: .relaxed) else {
            throw LMDBError(.usedAfterFork, "\(path) was opened before a fork; open it again in the child")
        }
    }
}

// MARK: - Reading

extension Environment {
    /// Runs `body` with a consistent snapshot of the whole environment.
    ///
    /// Readers wait neither for writers nor for each other. A long read keeps the pages it can see from being reused, so the file
    /// grows under it; and a growing map waits for it. Reads may nest, in other reads and in writes; a read must not wait for
    /// a write in another thread, since that write may have to wait for readers.
    ///
    /// - Throws: what `body` throws; ``LMDBError/Code/readersFull`` when there have been `maxReaders` readers, all alive, for more than
    ///   a second, or are, and this thread is one of them.
    public func read<R>(_ body: (borrowing ReadTransaction) throws -> R) throws -> R {
        let (slot, transaction) = try beginRead()
        defer {
            mdb_txn_reset(transaction)
            readers.leave(slot)
        }
        return try body(
            ReadTransaction(handle: TransactionHandle(pointer: transaction, environment: handle, writeState: nil)))
    }

    func beginRead() throws -> (UnsafeMutablePointer<ReaderPool.Slot>, OpaquePointer) {
        try checkProcess()
        var hasClearedReaders = false
        var attempts = 0
        var waits = 0
        while true {
            let slot = try readers.enter()
            let result = begin(slot)
            if result == MDB_SUCCESS, let transaction = slot.pointee.transaction { return (slot, transaction) }
            readers.leave(slot)
            attempts += 1
            switch result {
            case MDB_MAP_RESIZED where attempts < Self.maxAttempts:
                try adoptResizedMap()
            case MDB_BAD_RSLOT where attempts < Self.maxAttempts:
                continue
            case MDB_READERS_FULL where !hasClearedReaders:
                hasClearedReaders = true
                _ = try clearStaleReaders()
            case MDB_READERS_FULL where waits < Self.maxWaits && !readers.isCurrentThreadInside():
                waits += 1
                usleep(1000)
            case MDB_READERS_FULL:
                throw LMDBError(
                    .readersFull,
                    "\(path): all \(maxReaders) reader slots belong to live readers; end some or open with more maxReaders")
            default:
                throw LMDBError(LMDBError.Code(rawValue: result), "beginning to read \(path)")
            }
        }
    }

    /// How many milliseconds a reader waits for others to end. A thread that reads already does not: it might wait for itself.
    private static var maxWaits: Int { 1000 }

    /// How often a transaction that another process gets in the way of begins anew.
    static var maxAttempts: Int { 16 }

    private func begin(_ slot: UnsafeMutablePointer<ReaderPool.Slot>) -> Int32 {
        guard let transaction = slot.pointee.transaction else {
            return mdb_txn_begin(handle, nil, UInt32(MDB_RDONLY), &slot.pointee.transaction)
        }
        let result = mdb_txn_renew(transaction)
        // Another process took us for dead and the slot for its own. Ending the transaction would free that slot under
        // its new owner, so the few bytes of the transaction are given up instead.
        if result == MDB_BAD_RSLOT { slot.pointee.transaction = nil }
        return result
    }
}

// MARK: - Writing

extension Environment {
    /// Runs `body` as the environment's one writer and commits what it did; a thrown error undoes all of it.
    ///
    /// Writers of this process wait for each other here, those of other processes in LMDB. A transaction belongs to its thread,
    /// and the thread must not write again before it has ended.
    ///
    /// `body` must be fit to run again: when it fills the map and the map may grow, what it did is undone, the readers of this
    /// process leave, the map grows, and `body` starts anew. So it should change nothing but the transaction; its last run is
    /// the one that counts.
    ///
    /// - Throws: what `body` throws; ``LMDBError/Code/mapFull`` when the map is full and may not grow;
    ///   ``LMDBError/Code/noSpace`` when the file system is full; ``LMDBError/Code/permissionDenied`` when the environment is
    ///   read-only; ``LMDBError/Code/busy`` when the calling thread is in a write already, or in a read while the map must grow.
    @discardableResult
    public func write<R>(_ body: (borrowing WriteTransaction) throws -> R) throws -> R {
        try checkProcess()
        guard !configuration.isReadOnly else {
            throw LMDBError(.permissionDenied, "\(path) is open read-only")
        }
        try writerLock.lock()
        defer { writerLock.unlock() }
        while true {
            switch try attemptWrite(body) {
            case .committed(let result): return result
            case .mapFull(let error): try growMap(after: error)
            }
        }
    }

    private enum WriteOutcome<R> {
        case committed(R)
        case mapFull(LMDBError)
    }

    /// Runs `body` once. An error in it that is due to a full map is an outcome, however `body` dealt with it.
    private func attemptWrite<R>(_ body: (borrowing WriteTransaction) throws -> R) throws -> WriteOutcome<R> {
        let transaction = try beginWrite()
        writeState.pointee = WriteState()
        let result: R
        do {
            result = try body(WriteTransaction(pointer: transaction, environment: handle, state: writeState))
        } catch {
            mdb_txn_abort(transaction)
            if let failure = writeState.pointee.failure, failure.code == .mapFull { return .mapFull(failure) }
            throw error
        }
        if let failure = writeState.pointee.failure {
            mdb_txn_abort(transaction)
            if failure.code == .mapFull { return .mapFull(failure) }
            throw failure
        }
        let code = mdb_txn_commit(transaction)
        if code == MDB_SUCCESS { return .committed(result) }
        let error = commitError(code)
        if error.code == .mapFull { return .mapFull(error) }
        if error.code == .noSpace || error.code == .quotaExceeded { cutToCommittedPages() }
        throw error
    }

    /// Gives back what a commit that found the disk full has appended to the file: without it nothing could be deleted to make
    /// room. No reader looks behind the last committed page. The caller holds the writer's lock and has no transaction.
    private func cutToCommittedPages() {
        // holds off the writers of other processes
        guard let transaction = try? beginWrite() else { return }
        defer { mdb_txn_abort(transaction) }
        var descriptor: Int32 = -1
        mdb_env_get_fd(handle, &descriptor)
        guard let header = try? FileHeader.read(descriptor, path: path) else { return }
        cutFile(descriptor, to: (Int(header.lastPage) + 1) * header.pageSize)
    }

    func beginWrite() throws -> OpaquePointer {
        for _ in 0..<Self.maxAttempts {
            var transaction: OpaquePointer?
            let code = mdb_txn_begin(handle, nil, 0, &transaction)
            if code == MDB_SUCCESS, let transaction { return transaction }
            guard code == MDB_MAP_RESIZED else {
                throw LMDBError(LMDBError.Code(rawValue: code), "beginning to write \(path)")
            }
            try replaceMap(size: storedMapSize())
        }
        throw LMDBError(.mapResized, "\(path) grows faster than this process can follow")
    }

    /// LMDB 0.9.24 calls it an I/O error when a full disk takes only a part of a write.
    private func commitError(_ code: Int32) -> LMDBError {
        var error = LMDBError(LMDBError.Code(rawValue: code), "committing to \(path)")
        if error.code == .inputOutput, let free = freeSpace(at: path), free < 1 << 20 {
            error = LMDBError(.noSpace, "committing to \(path); nothing that was stored before is lost")
        }
        return error
    }
}
