internal import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What went wrong in LMDB or in the system below it, and where.
///
/// Compare ``code`` to decide what to do, show ``description`` to people:
///
///     do {
///         try environment.write { try database.put(key, value, in: $0) }
///     } catch let error as LMDBError where error.code == .noSpace {
///         …
///     }
public struct LMDBError: Error, Hashable, Sendable {
    /// An error number of LMDB (negative, `MDB_…`) or of the operating system (positive, `errno`).
    public struct Code: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32

        public init(rawValue: Int32) { self.rawValue = rawValue }
    }

    /// The kind of failure.
    public let code: Code

    /// What was being done, to what, and what the caller can do about it.
    public let context: String

    public init(_ code: Code, _ context: String) {
        self.code = code
        self.context = context
    }

    /// LMDB's or the operating system's own words for ``code``.
    public var message: String {
        guard let text = mdb_strerror(code.rawValue) else { return "error \(code.rawValue)" }
        return String(cString: text)
    }
}

extension LMDBError: CustomStringConvertible {
    public var description: String {
        context.isEmpty ? message : "\(context): \(message)"
    }
}

extension LMDBError.Code {
    // MARK: Codes of LMDB

    /// No such key, or no database of that name.
    public static let notFound = Self(rawValue: MDB_NOTFOUND)
    /// The key is there already; or a key given to `append` does not sort after the last one.
    public static let keyExists = Self(rawValue: MDB_KEYEXIST)
    /// The memory map is full and may not grow (any further).
    public static let mapFull = Self(rawValue: MDB_MAP_FULL)
    /// Another process grew the file beyond this process's map, and the map cannot be replaced just now.
    public static let mapResized = Self(rawValue: MDB_MAP_RESIZED)
    /// Every slot of the reader table belongs to a live reader.
    public static let readersFull = Self(rawValue: MDB_READERS_FULL)
    /// More named databases than `maxDatabases`.
    public static let databasesFull = Self(rawValue: MDB_DBS_FULL)
    /// One write transaction changed more pages than LMDB can track.
    public static let transactionFull = Self(rawValue: MDB_TXN_FULL)
    /// A page has the wrong type, or a stored key or value does not decode: the file is damaged.
    public static let corrupted = Self(rawValue: MDB_CORRUPTED)
    /// A page that should be there is not: the file is damaged.
    public static let pageNotFound = Self(rawValue: MDB_PAGE_NOTFOUND)
    /// The file is no LMDB file, or it was cut short.
    public static let invalid = Self(rawValue: MDB_INVALID)
    /// The file, or its lock file, was written by an LMDB with another format.
    public static let versionMismatch = Self(rawValue: MDB_VERSION_MISMATCH)
    /// An update of the file's root failed earlier; the environment must be closed.
    public static let panic = Self(rawValue: MDB_PANIC)
    /// The record is a database, or the database is of a kind that this library does not open (sorted duplicates, …).
    public static let incompatible = Self(rawValue: MDB_INCOMPATIBLE)
    /// The transaction failed earlier and can only be aborted.
    public static let badTransaction = Self(rawValue: MDB_BAD_TXN)
    /// A reader's slot in the lock file was taken away from it.
    public static let badReaderSlot = Self(rawValue: MDB_BAD_RSLOT)
    /// The database handle is not valid in this transaction.
    public static let badDatabase = Self(rawValue: MDB_BAD_DBI)
    /// An empty or too long key or name, or a too long value.
    public static let badValueSize = Self(rawValue: MDB_BAD_VALSIZE)

    // MARK: Codes of the operating system

    /// `ENOSPC`: the file system is full. What was stored before is intact.
    public static let noSpace = Self(rawValue: ENOSPC)
    /// `EDQUOT`: the user's disk quota is used up.
    public static let quotaExceeded = Self(rawValue: EDQUOT)
    /// `EACCES`: not permitted; also a write to an environment opened read-only.
    public static let permissionDenied = Self(rawValue: EACCES)
    /// `ENOENT`: no such file or directory.
    public static let noSuchFile = Self(rawValue: ENOENT)
    /// `EEXIST`: the file exists.
    public static let fileExists = Self(rawValue: EEXIST)
    /// `EISDIR`: the path names a directory.
    public static let isDirectory = Self(rawValue: EISDIR)
    /// `EROFS`: the file system is mounted read-only.
    public static let readOnlyFileSystem = Self(rawValue: EROFS)
    /// `EBUSY`: it cannot be done where it was asked for (a write inside a write), or not while something else is open.
    public static let busy = Self(rawValue: EBUSY)
    /// `ETIMEDOUT`: another process is where only one can be, and does not go on.
    public static let timedOut = Self(rawValue: ETIMEDOUT)
    /// `EINVAL`: an argument or a configuration makes no sense.
    public static let invalidArgument = Self(rawValue: EINVAL)
    /// `EIO`: the device failed to read or write.
    public static let inputOutput = Self(rawValue: EIO)
    /// `ENOMEM`: no memory or no address space.
    public static let outOfMemory = Self(rawValue: ENOMEM)
    /// `ECHILD`: the environment belongs to the process this one was forked from.
    public static let usedAfterFork = Self(rawValue: ECHILD)
}

extension LMDBError {
    /// The error that `errno` names. To be called before anything else can change it.
    static func fromErrno(_ context: String) -> LMDBError {
        LMDBError(Code(rawValue: errno), context)
    }

    /// Throws unless `result`, what an LMDB function returned, says success.
    static func check(_ result: Int32, _ context: @autoclosure () -> String) throws {
        if result != MDB_SUCCESS { throw LMDBError(Code(rawValue: result), context()) }
    }
}
