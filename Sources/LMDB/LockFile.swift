import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The lock file beside an LMDB file, and the turn that processes take at what LMDB lets only one do at a time.
///
/// Whoever opens a file that nobody has open sets its lock file up, and whoever begins to read for the first time, or clears slots,
/// has the reader table to itself. Others wait inside LMDB meanwhile, and without end if that process is stopped (`SIGSTOP`, a debugger,
/// a frozen container). So who comes to such a place takes a turn here first, and gives up when another one has it for too long.
///
/// The turn is a `flock` of the lock file, which LMDB's own `fcntl` locks do not meet. Closing any descriptor of the lock file drops LMDB's
/// locks of this process, so this one stays open until LMDB has closed the file.
final class LockFile: @unchecked Sendable {
    private let descriptor: Int32
    private let path: String
    /// A `flock` does not keep the threads of one process apart.
    private let monitor = Monitor()

    /// How many seconds somebody else may have the turn. It takes microseconds.
    static let patienceSeconds = 5
    private static let pauseMicroseconds: UInt32 = 500
    /// Files for whose turn somebody has waited in vain. Until it is free again, nobody else of this process waits for it.
    private static let heldUp = Locked<Set<String>>([])

    /// Opens the lock file of an LMDB file; makes it where it is missing. To be closed when LMDB has closed the file, and not before.
    ///
    /// To be called only while the LMDB file is not open in this process.
    ///
    /// - Returns: nil where the lock file cannot be opened: LMDB will say why, or do without.
    init?(of path: String, _ configuration: Environment.Configuration) throws {
        let lockPath = path + FileGenerations.lockSuffix
        guard let file = try Self.reserve(lockPath, configuration) else { return nil }
        descriptor = file.release()
        self.path = path
    }

    /// To be called once, as its last use.
    func close() { _ = systemClose(descriptor) }

    /// Runs `body` while no other process runs one for this file.
    ///
    /// - Parameter doing: what `body` does, for the error.
    /// - Throws: ``LMDBError/Code/timedOut`` when another process has had the turn for ``patienceSeconds``.
    func withTurn<R>(_ doing: String, _ body: () throws -> R) throws -> R {
        let end = ContinuousClock.now + .seconds(Self.patienceSeconds)
        return try monitor.withLock {
            try take(until: end, doing)
            defer { flock(descriptor, LOCK_UN) }
            return try body()
        }
    }

    private func take(until end: ContinuousClock.Instant, _ doing: String) throws {
        let isHeldUp = Self.heldUp.withLock { $0.contains(path) }
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else { throw LMDBError.fromErrno("\(doing) \(path)") }
            guard !isHeldUp, ContinuousClock.now < end else {
                _ = Self.heldUp.withLock { $0.insert(path) }
                throw timeout(doing)
            }
            usleep(Self.pauseMicroseconds)
        }
        if isHeldUp { _ = Self.heldUp.withLock { $0.remove(path) } }
    }

    private func timeout(_ doing: String) -> LMDBError {
        let holder = clmdb_exclusive_holder(descriptor)
        let process = holder > 0 ? "process \(holder)" : "another process"
        return LMDBError(
            .timedOut,
            "\(doing) \(path): \(process) has been at it for \(Self.patienceSeconds) seconds or more, and may be stopped; "
                + "let it go on (kill -CONT) or end it, and try again")
    }

    /// Sees to it that a lock file has room on the device: LMDB writes to it through a memory map, which on a full disk kills the process
    /// with SIGBUS.
    ///
    /// To be called only while the LMDB file is not open in this process.
    ///
    /// - Returns: the lock file, open; nil where it cannot be.
    @discardableResult
    static func reserve(_ path: String, _ configuration: Environment.Configuration) throws -> FileDescriptor? {
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK {
            throw LMDBError(.invalidArgument, "\(path) is a symbolic link, which is not followed; remove it")
        }
        let file = try? FileDescriptor(path: path, flags: O_RDWR | O_CREAT, mode: configuration.fileMode)
        guard let file else { return nil }
        // LMDB has 64 bytes for each reader, and less than a page for the rest.
        let size = configuration.maxReaders * 64 + systemPageSize
        try reserveSpace(file.number, count: max(size, Int(try file.status(path).st_size)), path: path)
        return file
    }
}

/// An LMDB file that LMDB has open, with its lock file.
struct OpenFile: Sendable {
    nonisolated(unsafe) let handle: OpaquePointer
    /// nil where there is none.
    let lockFile: LockFile?

    /// LMDB's descriptor of the file.
    var descriptor: Int32 {
        var descriptor: Int32 = -1
        mdb_env_get_fd(handle, &descriptor)
        return descriptor
    }

    /// Runs what LMDB lets only one process do at a time; see ``LockFile``.
    func withTurn<R>(_ doing: String, _ body: () throws -> R) throws -> R {
        guard let lockFile else { return try body() }
        return try lockFile.withTurn(doing, body)
    }

    /// Begins to read in a new slot of the reader table.
    ///
    /// - Returns: LMDB's code.
    func beginRead(_ transaction: inout OpaquePointer?) throws -> Int32 {
        try withTurn("beginning to read") { mdb_txn_begin(handle, nil, UInt32(MDB_RDONLY), &transaction) }
    }

    /// Frees the slots in the reader table that belong to processes which no longer run.
    ///
    /// - Returns: how many were freed.
    func clearStaleReaders(_ path: String) throws -> Int {
        var count: Int32 = 0
        let code = try withTurn("clearing stale readers of") { mdb_reader_check(handle, &count) }
        try LMDBError.check(code, "clearing stale readers of \(path)")
        return Int(count)
    }

    func close() {
        mdb_env_close(handle)
        lockFile?.close()
    }
}

private func systemClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
