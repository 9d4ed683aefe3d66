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
    func growMap(of file: EnvironmentFile) throws {
        // Readers that died keep the pages that they could see from being used again.
        if try file.clearStaleReaders() > 0 { return }
        let size = file.mapInfo().me_mapsize
        guard configuration.growsMap else {
            throw LMDBError(.mapFull, "\(file.path): the map of \(size) bytes is full, and growsMap is off")
        }
        let limit = roundUpToPage(configuration.maxMapSize)
        guard size < limit else {
            throw LMDBError(.mapFull, "\(file.path): the map of \(size) bytes is full, and maxMapSize is reached")
        }
        try file.replaceMap(size: size > limit / 2 ? limit : size * 2)
    }

    /// Takes over the map size that another process has given the file, for a reader that found the file beyond its map.
    func adoptResizedMap(of file: EnvironmentFile) throws {
        guard !file.readers.isCurrentThreadInside() else {
            throw LMDBError(
                .mapResized,
                "\(file.path): another process made the file grow, and this thread is inside an earlier read; end that first")
        }
        // One who opens a database reads with the lock held.
        let isHeld = writerLock.isHeldByCurrentThread
        if !isHeld { try writerLock.lock() }
        defer { if !isHeld { writerLock.unlock() } }
        // Of several readers that find the map too small, the first one puts it right.
        let size = try file.storedMapSize()
        if file.mapInfo().me_mapsize < size { try file.replaceMap(size: size) }
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
