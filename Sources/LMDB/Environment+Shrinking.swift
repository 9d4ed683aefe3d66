import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension Environment {
    /// The bytes of the file's free pages: by so much ``shrink()`` makes it smaller, and so much can be written before it grows.
    ///
    /// Pages that a running read can still see are among them.
    ///
    /// - Complexity: reads the list of free pages, a 500th of their bytes.
    public func freeBytes() throws -> Int {
        let read = try beginRead()
        defer { read.end() }
        let context = "counting the free pages of \(read.file.path)"
        var statistics = MDB_stat()
        try LMDBError.check(mdb_stat(read.transaction, Self.freeList, &statistics), context)
        var cursor: OpaquePointer?
        try LMDBError.check(mdb_cursor_open(read.transaction, Self.freeList, &cursor), context)
        defer { mdb_cursor_close(cursor) }
        var pages = statistics.ms_branch_pages + statistics.ms_leaf_pages + statistics.ms_overflow_pages
        var key = MDB_val()
        var value = MDB_val()
        while true {
            let code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
            if code == MDB_NOTFOUND { break }
            try LMDBError.check(code, context)
            // a list of page numbers, after their count
            guard value.mv_size >= MemoryLayout<Int>.size else { throw LMDBError(.corrupted, context) }
            pages += value.mv_data.loadUnaligned(as: Int.self)
        }
        return pages * Int(statistics.ms_psize)
    }

    /// The number that LMDB has given the database of free pages.
    private static var freeList: MDB_dbi { 0 }

    /// Makes the file as small as its content allows: puts a compacted copy, its *successor*, in its place.
    ///
    /// LMDB never gives a file's free pages back. This does, while other threads and processes read and write; they follow to the
    /// new file with their next transaction, and their `Environment` and ``Database`` values stay good. Writers wait while the
    /// content is copied, readers wait for nothing. The former file's space is free once every process that has it open has
    /// followed and reads that began in it have ended.
    ///
    /// It copies all that is stored, so look at ``freeBytes()`` first.
    ///
    /// - Returns: the size of the file in bytes, before and after.
    /// - Throws: ``LMDBError/Code/noSpace`` and others, and then the file is what it was; ``LMDBError/Code/busy`` inside a
    ///   transaction of this thread; ``LMDBError/Code/invalidArgument`` without ``Configuration/allowsSuccessors``;
    ///   ``LMDBError/Code/permissionDenied`` when the environment is read-only.
    @discardableResult
    public func shrink() throws -> (before: Int, after: Int) {
        try succeed { file, path in
            let copy = try FileDescriptor(path: path, flags: O_WRONLY | O_CREAT | O_EXCL, mode: configuration.fileMode)
            try copyPages(to: copy.number, path, compacting: true)
        }
    }

    /// Puts another file in the current one's place, as ``shrink()`` does, but with the content that `build` makes.
    ///
    /// Writers of all processes wait while `build` runs, so that what it reads of this environment is all there is. When it fails, or the
    /// process is killed in it, nothing has changed.
    ///
    /// - Parameter build: makes an LMDB file at the path, which does not exist, and has it closed again when it returns. It may read from this
    ///   environment, and must not write to it.
    /// - Throws: as ``shrink()``, and what `build` throws.
    public func succeed(with build: (_ path: String) throws -> Void) throws {
        try succeed { _, path in
            try build(path)
            try? folder?.remove(path.lastComponent + FileGenerations.lockSuffix)
        }
    }

    @discardableResult
    private func succeed(_ build: (EnvironmentFile, String) throws -> Void) throws -> (before: Int, after: Int) {
        try checkProcess()
        guard let folder else {
            throw LMDBError(.invalidArgument, "\(path) was opened without allowsSuccessors, and so stays as large as it is")
        }
        guard !configuration.isReadOnly else {
            throw LMDBError(.permissionDenied, "\(path) is open read-only")
        }
        guard try !currentFile().readers.isCurrentThreadInside() else {
            throw LMDBError(.busy, "a file is succeeded outside of transactions, and this thread is in one")
        }
        try writerLock.lock()
        defer { writerLock.unlock() }
        // Holds off the writers of all processes, so that what is copied is all there is.
        let (file, transaction) = try beginWrite()
        let result = Result { try makeSuccessor(of: file, in: folder, build) }
        mdb_txn_abort(transaction)
        if try folder.identity(of: file.successorName) != nil { try follow(from: file) }
        return try result.get()
    }

    /// Has the successor made and removes the file. The caller has its write lock.
    private func makeSuccessor(
        of file: EnvironmentFile, in folder: GenerationFolder, _ build: (EnvironmentFile, String) throws -> Void
    ) throws -> (before: Int, after: Int) {
        try folder.removeObsolete(beside: file.generation)
        let name = file.successorName
        let lockName = name + FileGenerations.lockSuffix
        let unfinishedName = name + FileGenerations.unfinishedSuffix
        let before = try file.byteCount()
        let after: Int
        do {
            // Nobody who follows should find that there is no room for it.
            if configuration.usesLocks { try LockFile.reserve(folder.path(of: lockName), configuration) }
            FaultPoint.reached("successor begun")
            try build(file, folder.path(of: unfinishedName))
            FaultPoint.reached("successor built")
            after = try Self.synchronize(folder.path(of: unfinishedName))
            try folder.rename(unfinishedName, to: name)
            FaultPoint.reached("successor named")
        } catch {
            try? folder.remove(unfinishedName)
            try? folder.remove(unfinishedName + FileGenerations.lockSuffix)
            try? folder.remove(lockName)
            throw error
        }
        // From here on the successor is the current file. Where its name may not be durable, the former file stays.
        try folder.synchronize()
        FaultPoint.reached("successor durable")
        try folder.removePredecessors(of: file.generation + 1)
        FaultPoint.reached("predecessors removed")
        return (before, after)
    }

    /// Brings a file to the device.
    ///
    /// - Returns: its size in bytes.
    private static func synchronize(_ path: String) throws -> Int {
        let file = try FileDescriptor(path: path, flags: O_RDWR)
        try file.synchronize(path)
        return Int(try file.status(path).st_size)
    }
}

extension String {
    /// What stands behind the last slash.
    fileprivate var lastComponent: String { lastIndex(of: "/").map { String(self[index(after: $0)...]) } ?? self }
}
