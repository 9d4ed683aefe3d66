import CLMDB
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One LMDB file, open: LMDB's handle, the reads inside it, and its memory map.
///
/// An ``Environment`` has one file; or one after the other, where it may have successors. Every read holds the file it began in, so
/// a file that was succeeded stays open until the last of them has ended, and nobody waits for that.
final class EnvironmentFile: @unchecked Sendable {
    let path: String
    let identity: FileIdentity
    /// 1 for the file that the environment is named for; see ``FileGenerations``.
    let generation: Int
    /// In its folder; and what its successor will be called.
    let name: String
    let successorName: String
    let open: OpenFile
    let readers = ReaderPool()
    /// Whether a writer of this process has made sure that the file's name is durable and its predecessors are gone. Guarded by the
    /// writer's lock.
    var isSettled = false
    /// What the file had at least when it was opened, and cannot lose: all committed pages.
    private let byteCountMin: Int
    private let forks = forkGeneration.load(ordering: .relaxed)

    /// Takes over an open LMDB environment.
    init(_ open: OpenFile, path: String, identity: FileIdentity, generation: Int, names: FileGenerations? = nil) {
        self.open = open
        self.path = path
        self.identity = identity
        self.generation = generation
        byteCountMin = Self.committedBytes(open.descriptor, path)
        name = names?.name(of: generation) ?? path
        successorName = names?.name(of: generation + 1) ?? ""
    }

    deinit {
        // In a forked child, handle and lock file belong to the parent; all a child may do is to forget them.
        guard forks == forkGeneration.load(ordering: .relaxed) else { return }
        EnvironmentRegistry.shared.close(identity) { [readers, open] in
            readers.close()
            open.close()
        }
    }

    /// LMDB's own.
    var handle: OpaquePointer { open.handle }

    /// LMDB's descriptor of the file.
    var descriptor: Int32 { open.descriptor }

    /// The size of the file in bytes.
    func byteCount() throws -> Int {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw LMDBError.fromErrno("looking at \(path)") }
        return Int(status.st_size)
    }

    /// Pages at the end that are free may never have been written.
    private static func committedBytes(_ descriptor: Int32, _ path: String) -> Int {
        var status = stat()
        guard fstat(descriptor, &status) == 0, let header = try? FileHeader.read(descriptor, path: path) else { return 0 }
        return min(Int(status.st_size), (Int(header.lastPage) + 1) * header.pageSize)
    }

    /// Makes sure that nobody has cut the file short since it was opened: touching what is gone would end the process.
    func checkLength() throws {
        guard try byteCount() >= byteCountMin else {
            throw LMDBError(.corrupted, "\(path) was cut short while it is open")
        }
    }

    /// Frees the slots in the reader table that belong to processes which no longer run.
    ///
    /// - Returns: how many were freed.
    func clearStaleReaders() throws -> Int { try open.clearStaleReaders(path) }

    /// The size of the reader table; the first process to open the file decided it.
    var maxReaders: Int {
        var count: UInt32 = 0
        mdb_env_get_maxreaders(handle, &count)
        return Int(count)
    }
}

// MARK: - The memory map

extension EnvironmentFile {
    /// To be called only while the map cannot be replaced: by readers, and by who holds the writer's lock.
    func mapInfo() -> MDB_envinfo {
        var info = MDB_envinfo()
        mdb_env_info(handle, &info)
        return info
    }

    /// The map size that the file's other users have agreed on, or that the file needs, read from the file itself: its meta
    /// pages in the map change while they are looked at.
    func storedMapSize() throws -> Int {
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
}
