import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension Environment {
    /// Frees the slots in the reader table that belong to processes which no longer run. A reader that finds the table full
    /// does so itself.
    ///
    /// - Returns: how many were freed.
    public func clearStaleReaders() throws -> Int {
        try checkProcess()
        return try currentFile().clearStaleReaders()
    }

    /// Brings everything committed so far to the device. With ``Configuration/Durability-swift.enum/durable`` every commit does.
    ///
    /// - Throws: ``LMDBError/Code/permissionDenied`` when the environment is read-only.
    public func sync() throws {
        try checkProcess()
        let file = try currentFile()
        try LMDBError.check(mdb_env_sync(file.handle, 1), "flushing \(file.path)")
    }

    /// Copies the environment as of one moment into a new file, which is on the device when the call returns.
    ///
    /// It is a read that lasts as long as the copying takes.
    ///
    /// - Parameters:
    ///   - path: of the new file. It must not exist.
    ///   - compacting: whether to leave the free pages out and number the others in order, which takes more time.
    /// - Throws: ``LMDBError/Code/fileExists``, and leaves that file alone; ``LMDBError/Code/noSpace`` and others, and leaves
    ///   nothing at `path`; ``LMDBError/Code/busy`` inside a write of this thread.
    public func copy(to path: String, compacting: Bool) throws {
        try checkProcess()
        guard !writerLock.isHeldByCurrentThread else {
            throw LMDBError(.busy, "a copy waits for writers, and this thread is inside a write of \(self.path)")
        }
        let descriptor = try FileDescriptor(path: path, flags: O_WRONLY | O_CREAT | O_EXCL, mode: configuration.fileMode)
        do {
            try copyPages(to: descriptor.number, path, compacting: compacting)
            try descriptor.synchronize(path)
            try synchronizeDirectory(of: path)
        } catch {
            unlink(path)
            throw error
        }
    }

    /// Has LMDB copy the current file into one that is empty.
    func copyPages(to descriptor: Int32, _ destination: String, compacting: Bool) throws {
        // Resolves a resized map and stale readers, which LMDB's own reader below cannot. The slot keeps the map in place.
        let read = try beginRead()
        let (file, slot) = (read.file, read.slot)
        mdb_txn_reset(read.transaction)
        defer { file.readers.leave(slot) }
        let flags = compacting ? UInt32(MDB_CP_COMPACT) : 0
        var code = mdb_env_copyfd2(file.handle, descriptor, flags)
        if code == MDB_READERS_FULL {
            if let transaction = slot.pointee.transaction { mdb_txn_abort(transaction) }
            slot.pointee.transaction = nil
            file.readers.releaseIdle()
            code = mdb_env_copyfd2(file.handle, descriptor, flags)
        }
        if code == EIO, let free = freeSpace(at: destination), free < 1 << 20 { code = ENOSPC }
        try LMDBError.check(code, "copying \(file.path) to \(destination)")
    }
}
