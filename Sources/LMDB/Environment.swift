import CLMDB
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An LMDB file, opened: a set of ordered key-value databases with one writer and any number of readers.
///
/// There is one instance per file and process, shared by all who open it and closed when the last reference goes. Reads and
/// writes are synchronous closures; reads run concurrently with each other and with the writer, in any thread:
///
///     let environment = try Environment.open(at: "index.mdb", configuration: .init())
///     let names = try environment.database(named: "names", keys: BigEndianUInt64.self, values: UTF8String.self, creating: true)
///     try environment.write { try names.put(7, "seven", in: $0) }
///     let name = try environment.read { try names.get(7, in: $0) }
public final class Environment: Sendable {
    /// The file's path, absolute and free of symbolic links. With ``Configuration/allowsSuccessors`` that of generation 1; see
    /// ``filePath``.
    public let path: String

    /// What the environment was opened with.
    public let configuration: Configuration

    /// Where successors lie; nil if there are to be none.
    let folder: GenerationFolder?
    let writerLock = WriterLock()
    /// Guarded by `writerLock`.
    nonisolated(unsafe) let writeState: UnsafeMutablePointer<WriteState>
    let state: Locked<State>
    private let forks = forkGeneration.load(ordering: .relaxed)

    /// What changes when a successor takes over.
    struct State {
        var file: EnvironmentFile
        /// Handles of the databases opened so far, the same in every file; the unnamed one goes by nil.
        var databases: [String?: MDB_dbi] = [:]
    }

    init(file: EnvironmentFile, path: String, configuration: Configuration, folder: GenerationFolder?) {
        self.path = path
        self.configuration = configuration
        self.folder = folder
        state = Locked(State(file: file))
        writeState = .allocate(capacity: 1)
        writeState.initialize(to: WriteState())
    }

    deinit {
        writeState.deinitialize(count: 1)
        writeState.deallocate()
    }

    /// - Throws: ``LMDBError/Code/usedAfterFork`` in a process forked from the one that opened the environment.
    func checkProcess() throws {
        guard forks == forkGeneration.load(ordering: .relaxed) else {
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
        let read = try beginRead()
        defer { read.end() }
        return try body(
            ReadTransaction(
                handle: TransactionHandle(
                    pointer: read.transaction, environment: ObjectIdentifier(self), writeState: nil)))
    }

    /// A read that has begun. It holds its file open, whatever succeeds that.
    struct RunningRead {
        let file: EnvironmentFile
        let slot: UnsafeMutablePointer<ReaderPool.Slot>
        let transaction: OpaquePointer

        func end() {
            mdb_txn_reset(transaction)
            file.readers.leave(slot)
        }
    }

    func beginRead() throws -> RunningRead {
        try checkProcess()
        var hasClearedReaders = false
        var attempts = 0
        var waits = 0
        while true {
            let file = try currentFile()
            try file.checkLength()
            let slot = try file.readers.enter()
            let result: Int32
            do { result = try begin(slot, in: file) } catch {
                file.readers.leave(slot)
                throw error
            }
            if result == MDB_SUCCESS, let transaction = slot.pointee.transaction {
                return RunningRead(file: file, slot: slot, transaction: transaction)
            }
            file.readers.leave(slot)
            attempts += 1
            switch result {
            case MDB_MAP_RESIZED where attempts < Self.maxAttempts:
                try adoptResizedMap(of: file)
            case MDB_BAD_RSLOT where attempts < Self.maxAttempts:
                continue
            case MDB_READERS_FULL where !hasClearedReaders:
                hasClearedReaders = true
                _ = try file.clearStaleReaders()
            case MDB_READERS_FULL where waits < Self.maxWaits && !file.readers.isCurrentThreadInside():
                waits += 1
                usleep(1000)
            case MDB_READERS_FULL:
                throw LMDBError(
                    .readersFull,
                    "\(file.path): all \(file.maxReaders) reader slots belong to live readers; end some or open with more maxReaders"
                )
            default:
                throw LMDBError(LMDBError.Code(rawValue: result), "beginning to read \(file.path)")
            }
        }
    }

    /// How many milliseconds a reader waits for others to end. A thread that reads already does not: it might wait for itself.
    static var maxWaits: Int { 1000 }

    /// How often a transaction that another process gets in the way of begins anew.
    static var maxAttempts: Int { 16 }

    private func begin(_ slot: UnsafeMutablePointer<ReaderPool.Slot>, in file: EnvironmentFile) throws -> Int32 {
        guard let transaction = slot.pointee.transaction else {
            return try file.open.beginRead(&slot.pointee.transaction)
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
        return try writeLocked(body).result
    }

    /// Like ``write(_:)``, for one who holds the writer's lock.
    ///
    /// - Returns: also the file that was written to.
    func writeLocked<R>(
        _ body: (borrowing WriteTransaction) throws -> R
    ) throws -> (result: R, file: EnvironmentFile) {
        while true {
            let (file, transaction) = try beginWrite()
            switch try attemptWrite(to: file, transaction, body) {
            case .committed(let result): return (result, file)
            case .mapFull: try growMap(of: file)
            }
        }
    }

    private enum WriteOutcome<R> {
        case committed(R)
        case mapFull
    }

    /// Runs `body` once. An error in it that is due to a full map is an outcome, however `body` dealt with it.
    private func attemptWrite<R>(
        to file: EnvironmentFile, _ transaction: OpaquePointer, _ body: (borrowing WriteTransaction) throws -> R
    ) throws -> WriteOutcome<R> {
        writeState.pointee = WriteState()
        let result: R
        do {
            result = try body(
                WriteTransaction(pointer: transaction, environment: ObjectIdentifier(self), state: writeState))
        } catch {
            mdb_txn_abort(transaction)
            if let failure = writeState.pointee.failure, failure.code == .mapFull { return .mapFull }
            throw error
        }
        if let failure = writeState.pointee.failure {
            mdb_txn_abort(transaction)
            if failure.code == .mapFull { return .mapFull }
            throw failure
        }
        FaultPoint.reached("commit")
        let code = mdb_txn_commit(transaction)
        FaultPoint.reached("committed")
        if code == MDB_SUCCESS { return .committed(result) }
        let error = commitError(code, file)
        if error.code == .mapFull { return .mapFull }
        if error.code == .noSpace || error.code == .quotaExceeded { cutToCommittedPages() }
        throw error
    }

    /// Gives back what a commit that found the disk full has appended to the file: without it nothing could be deleted to make
    /// room. No reader looks behind the last committed page. The caller holds the writer's lock and has no transaction.
    private func cutToCommittedPages() {
        // holds off the writers of other processes
        guard let (file, transaction) = try? beginWrite() else { return }
        defer { mdb_txn_abort(transaction) }
        guard let header = try? FileHeader.read(file.descriptor, path: file.path) else { return }
        cutFile(file.descriptor, to: (Int(header.lastPage) + 1) * header.pageSize)
    }

    /// Begins to write to the current file. The caller holds the writer's lock.
    func beginWrite() throws -> (file: EnvironmentFile, transaction: OpaquePointer) {
        var attempts = 0
        while true {
            let file = state.withLock { $0.file }
            try file.checkLength()
            var transaction: OpaquePointer?
            let code = mdb_txn_begin(file.handle, nil, 0, &transaction)
            if code == MDB_SUCCESS, let transaction {
                if try mayWrite(to: file, transaction) { return (file, transaction) }
                try follow(from: file)
                continue
            }
            guard code == MDB_MAP_RESIZED, attempts < Self.maxAttempts else {
                throw LMDBError(LMDBError.Code(rawValue: code), "beginning to write \(file.path)")
            }
            attempts += 1
            try file.replaceMap(size: file.storedMapSize())
        }
    }

    /// LMDB 0.9.24 calls it an I/O error when a full disk takes only a part of a write.
    private func commitError(_ code: Int32, _ file: EnvironmentFile) -> LMDBError {
        var error = LMDBError(LMDBError.Code(rawValue: code), "committing to \(file.path)")
        if error.code == .inputOutput, let free = freeSpace(at: file.path), free < 1 << 20 {
            error = LMDBError(.noSpace, "committing to \(file.path); nothing that was stored before is lost")
        }
        return error
    }
}
