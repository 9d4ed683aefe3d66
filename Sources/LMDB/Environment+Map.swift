import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

// The memory map: how it grows, and how it follows another process that made it grow.
extension Environment {
    /// Makes room for a write that found none: takes back what dead readers hold, or doubles the map, up to the configured limit. The caller holds the writer's lock and has no transaction.
    func growMap(after error: LMDBError) throws {
        // Readers that died keep the pages that they could see from being used again.
        if try clearStaleReaders() > 0 { return }
        let size = mapInfo().me_mapsize
        guard configuration.growsMap else {
            throw LMDBError(.mapFull, "\(path): the map of \(size) bytes is full, and growsMap is off")
        }
        let limit = roundUpToPage(configuration.maxMapSize)
        guard size < limit else {
            throw LMDBError(.mapFull, "\(path): the map of \(size) bytes is full, and maxMapSize is reached")
        }
        try replaceMap(size: size > limit / 2 ? limit : size * 2)
    }

    /// Takes over the map size that another process has given the file, for a reader that found the file beyond its map.
    func adoptResizedMap() throws {
        guard !readers.isCurrentThreadInside() else {
            throw LMDBError(
                .mapResized,
                "\(path): another process made the file grow, and this thread is inside an earlier read; end that first")
        }
        // One who opens a database reads with the lock held.
        let isHeld = writerLock.isHeldByCurrentThread
        if !isHeld { try writerLock.lock() }
        defer { if !isHeld { writerLock.unlock() } }
        // Of several readers that find the map too small, the first one puts it right.
        let size = try storedMapSize()
        if mapInfo().me_mapsize < size { try replaceMap(size: size) }
    }

    /// The map size that the file's other users have agreed on, or that the file needs, read from the file itself: its meta
    /// pages in the map change while they are looked at.
    func storedMapSize() throws -> Int {
        var descriptor: Int32 = -1
        mdb_env_get_fd(handle, &descriptor)
        guard let header = try FileHeader.read(descriptor, path: path) else {
            throw LMDBError(.invalid, "\(path) was emptied while it is open")
        }
        return max(header.mapSize, (Int(header.lastPage) + 1) * header.pageSize)
    }

    /// Maps the file anew, when no reader of this process is left. The caller holds the writer's lock and has no transaction.
    ///
    /// - Parameter size: in bytes. LMDB makes it larger where the file is.
    func replaceMap(size: Int) throws {
        try readers.drain {
            let former = mapInfo().me_mapsize
            // LMDB unmaps first and cannot map the former size again if the new one fails, so find out beforehand.
            try checkAddressSpace(max(size, former))
            let code = mdb_env_set_mapsize(handle, size)
            if code == EINVAL { throw LMDBError(.invalidArgument, "growing the map of \(path)") }
            return code == MDB_SUCCESS
        }
    }

    private func checkAddressSpace(_ size: Int) throws {
        let probe = mmap(nil, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let probe, probe != MAP_FAILED else {
            throw LMDBError.fromErrno("finding \(size) bytes of address space for the map of \(path)")
        }
        munmap(probe, size)
    }

    /// To be called only while the map cannot be replaced: by readers, and by who holds the writer's lock.
    func mapInfo() -> MDB_envinfo {
        var info = MDB_envinfo()
        mdb_env_info(handle, &info)
        return info
    }

    /// The size of the reader table; the first process to open the file decided it.
    var maxReaders: Int {
        var count: UInt32 = 0
        mdb_env_get_maxreaders(handle, &count)
        return Int(count)
    }
}

/// The smallest multiple of the machine's page size that is at least `size`.
func roundUpToPage(_ size: Int) -> Int {
    (size + systemPageSize - 1) / systemPageSize * systemPageSize
}

/// The bytes that the file system of `path` has left for this user; nil if it does not say.
func freeSpace(at path: String) -> Int? {
    var status = statvfs()
    guard statvfs(path, &status) == 0 else { return nil }
    return Int(clamping: UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue)
}
