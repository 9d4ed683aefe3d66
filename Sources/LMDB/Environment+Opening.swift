import CLMDB
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension Environment {
    /// Opens an LMDB file, or hands out the environment that has it open already in this process, by whatever path.
    ///
    /// The file is created if it does not exist, unless the environment is to be read-only. Its readers' table lies beside it,
    /// in a file whose name ends in `-lock`. Neither is moved, replaced or removed while any process has the file open, but by
    /// ``shrink()``.
    ///
    /// - Parameters:
    ///   - path: of the file itself, not of a directory that holds it.
    ///   - configuration: the same for all who have the file open in this process.
    /// - Throws: ``LMDBError``, with ``LMDBError/Code/busy`` for a file that is open with another configuration,
    ///   ``LMDBError/Code/invalid`` for one that is no LMDB file or was cut short, ``LMDBError/Code/corrupted`` for one whose pages
    ///   contradict each other, ``LMDBError/Code/versionMismatch`` for another format of LMDB, and the operating system's codes.
    public static func open(at path: String, configuration: Configuration = Configuration()) throws -> Environment {
        try configuration.validate()
        let found = try configuration.allowsSuccessors ? openNewest(path, configuration) : openOnly(path, configuration)
        guard !found.isShared || found.environment.configuration == configuration else {
            let names = configuration.differences(from: found.environment.configuration).joined(separator: ", ")
            throw LMDBError(.busy, "\(found.environment.path) is open in this process with another configuration (\(names))")
        }
        return found.environment
    }

    /// Opens a file that has no successors.
    private static func openOnly(
        _ path: String, _ configuration: Configuration
    ) throws -> (environment: Environment, isShared: Bool) {
        let descriptor = try FileDescriptor(
            path: path, flags: configuration.isReadOnly ? O_RDONLY : O_RDWR | O_CREAT, mode: configuration.fileMode)
        let identity = try regularFile(descriptor, path)
        guard let resolved = realpath(path, nil) else { throw LMDBError.fromErrno("resolving \(path)") }
        defer { free(resolved) }
        let realPath = String(cString: resolved)
        return try EnvironmentRegistry.shared.environment(of: identity, path: realPath) {
            let open = try openFile(descriptor.number, realPath, configuration, identity)
            let file = EnvironmentFile(open, path: realPath, identity: identity, generation: 1)
            return Environment(file: file, path: realPath, configuration: configuration, folder: nil)
        }
    }

    static func regularFile(_ descriptor: borrowing FileDescriptor, _ path: String) throws -> FileIdentity {
        let status = try descriptor.status(path)
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw LMDBError(status.st_mode & S_IFMT == S_IFDIR ? .isDirectory : .invalidArgument, "\(path) is no regular file")
        }
        return FileIdentity(status)
    }

    /// Opens a file with LMDB. The caller holds the registry's lock.
    static func openFile(
        _ descriptor: Int32, _ path: String, _ configuration: Configuration, _ identity: FileIdentity
    ) throws -> OpenFile {
        let header = try FileHeader.validate(descriptor, path: path)
        guard header != nil || !configuration.isReadOnly else {
            throw LMDBError(.invalid, "\(path) is empty, and cannot be set up in a read-only environment")
        }
        // LMDB leaves a torn file behind when it finds no room for the first pages.
        if header == nil { try reserveSpace(descriptor, count: 2 * systemPageSize, path: path) }
        let lockFile = configuration.usesLocks ? try LockFile(of: path, configuration) : nil
        let file: OpenFile
        do {
            let open = { try openHandle(path, configuration, header, identity) }
            file = OpenFile(handle: try lockFile?.withTurn("opening", open) ?? open(), lockFile: lockFile)
        } catch {
            lockFile?.close()
            throw error
        }
        do {
            if let header, header.transactionID > 0 { try TreeCheck.run(file, descriptor: descriptor, path: path) }
            if header == nil { try synchronizeDirectory(of: path) }
            return file
        } catch {
            file.close()
            throw error
        }
    }

    /// Opens a file with LMDB, and makes sure of its lock file.
    private static func openHandle(
        _ path: String, _ configuration: Configuration, _ header: FileHeader?, _ identity: FileIdentity
    ) throws -> OpaquePointer {
        for attempt in 0... {
            var created: OpaquePointer?
            try LMDBError.check(mdb_env_create(&created), "setting up an environment")
            guard let handle = created else { throw LMDBError(.outOfMemory, "setting up an environment") }
            do {
                try configure(handle, configuration, header)
                let code = mdb_env_open(
                    handle, path, openFlags(configuration), mode_t(truncatingIfNeeded: configuration.fileMode))
                try LMDBError.check(code, openContext(path, code))
                try checkIdentity(handle, identity, path)
                try checkLockFile(handle, header, path)
                return handle
            } catch let error as LMDBError where lockFileCodes.contains(error.code) && attempt < maxLockAttempts {
                // The next one to open it alone sets the lock file up anew.
                mdb_env_close(handle)
                usleep(1000 << UInt32(attempt))
            } catch {
                mdb_env_close(handle)
                throw error
            }
        }
        throw LMDBError(.busy, path + FileGenerations.lockSuffix)
    }

    /// What opening fails with for a lock file that is not fit to be used; the last one is for one that is still empty, where LMDB maps nothing.
    private static let lockFileCodes: Set<LMDBError.Code> = [.invalid, .versionMismatch, .badReaderSlot, .invalidArgument]

    /// After so many attempts, and twice as long a pause each time, a quarter of a second in all, somebody must have such a lock
    /// file open and keep it.
    private static let maxLockAttempts = 8

    /// The first process to open a file sets its lock file up; others wait for it. If it is killed before it is done, those who
    /// waited go on with what there is: a lock file that is refused, or one that says that nothing was ever written. LMDB
    /// believes that, shows an empty file and would write its first pages again.
    private static func checkLockFile(_ handle: OpaquePointer, _ header: FileHeader?, _ path: String) throws {
        guard let header, header.transactionID > 0 else { return }
        var transaction: OpaquePointer?
        // Where reading fails, there have been readers or writers, so the lock file is in use.
        guard mdb_txn_begin(handle, nil, UInt32(MDB_RDONLY), &transaction) == MDB_SUCCESS else { return }
        let last = mdb_txn_id(transaction)
        mdb_txn_abort(transaction)
        guard last > 0 else {
            throw LMDBError(
                .badReaderSlot,
                "opening \(path): a process was killed while it made \(path)-lock, and another one has that open; close it there")
        }
    }

    private static func configure(_ handle: OpaquePointer, _ configuration: Configuration, _ header: FileHeader?) throws {
        var mapSize = configuration.mapSize
        if let header, configuration.growsMap {
            mapSize = max(mapSize, min(header.mapSize, configuration.maxMapSize))
        }
        try LMDBError.check(mdb_env_set_mapsize(handle, roundUpToPage(mapSize)), "setting the map size")
        try LMDBError.check(mdb_env_set_maxdbs(handle, UInt32(configuration.maxDatabases)), "setting maxDatabases")
        try LMDBError.check(mdb_env_set_maxreaders(handle, UInt32(configuration.maxReaders)), "setting maxReaders")
    }

    private static func openFlags(_ configuration: Configuration) -> UInt32 {
        var flags = MDB_NOSUBDIR | MDB_NOTLS
        if configuration.isReadOnly { flags |= MDB_RDONLY }
        if !configuration.usesLocks { flags |= MDB_NOLOCK }
        if !configuration.readAhead { flags |= MDB_NORDAHEAD }
        if configuration.durability == .relaxed { flags |= MDB_NOMETASYNC }
        if configuration.isScratch { flags |= MDB_NOSYNC }
        return UInt32(flags)
    }

    private static func openContext(_ path: String, _ code: Int32) -> String {
        switch code {
        // The data file has been looked at, so these speak of the lock file.
        case MDB_INVALID, MDB_VERSION_MISMATCH:
            "opening \(path): \(path)-lock is damaged or of another LMDB; remove it when no process has the file open"
        case ENOMEM: "opening \(path): mapping it into memory; a smaller mapSize may do"
        default: "opening \(path)"
        }
    }

    /// LMDB opens by path what was looked at by descriptor; between the two somebody can have put another file there.
    private static func checkIdentity(_ handle: OpaquePointer, _ identity: FileIdentity, _ path: String) throws {
        var descriptor: Int32 = -1
        mdb_env_get_fd(handle, &descriptor)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw LMDBError.fromErrno("looking at \(path)") }
        guard FileIdentity(status) == identity else {
            throw LMDBError(.busy, "\(path) was replaced while it was being opened")
        }
    }
}
