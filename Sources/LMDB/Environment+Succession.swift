import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

// How an environment finds the newest of its files, and notices that the one it has open is no longer that.
//
// A file is succeeded in one step, a renaming, by a process that holds the file's write lock from before its content is copied until
// after its successor is there. So whoever has the write lock and finds no successor can write without losing anything, and a
// reader who finds none reads everything that was acknowledged before it looked. The predecessors are removed afterwards, oldest
// first: at any time the generations that exist are consecutive, and the highest is the current one.
extension Environment {
    /// The path of the file that is current just now: that of a successor, where there has been one.
    public var filePath: String {
        guard (try? checkProcess()) != nil, let file = try? currentFile() else { return path }
        return file.path
    }

    /// The newest file, opened if it is a successor that this process has yet to follow.
    func currentFile() throws -> EnvironmentFile {
        while true {
            let file = state.withLock { $0.file }
            if try isCurrent(file) { return file }
            try follow(from: file)
        }
    }

    /// Whether a file has no successor.
    private func isCurrent(_ file: EnvironmentFile) throws -> Bool {
        guard let folder else { return true }
        // In this order: that the file is still there when no successor has been seen rules out that two came and one went.
        guard try folder.identity(of: file.successorName) == nil else { return false }
        return try folder.identity(of: file.name) == file.identity
    }

    /// Opens the newest file in place of `file`, unless another thread has done so. Reads that began in `file` go on there.
    func follow(from file: EnvironmentFile) throws {
        guard let folder else { return }
        let former = try state.withLock { state -> EnvironmentFile? in
            guard state.file === file else { return nil }
            let next = try EnvironmentRegistry.shared.file(for: self) { checkUnopened in
                try Self.openGeneration(in: folder, configuration, after: file, checkUnopened)
            }
            try Self.open(state.databases, in: next)
            state.file = next
            return file
        }
        // Where nobody reads in it, it closes here, and not under the lock.
        withExtendedLifetime(former) {}
    }

    /// Opens the same databases under the same numbers.
    private static func open(_ databases: [String?: MDB_dbi], in file: EnvironmentFile) throws {
        let transaction = try beginFirstRead(of: file)
        do {
            // LMDB numbers them in the order of their opening.
            for (name, number) in databases.sorted(by: { $0.value < $1.value }) {
                let opened = try openHandle(transaction, name, flags: 0, file.path)
                guard opened == number else {
                    throw LMDBError(.badDatabase, "\(describe(name)) of \(file.path) has number \(opened), and had \(number)")
                }
            }
        } catch {
            mdb_txn_abort(transaction)
            throw error
        }
        // Only a commit keeps the handles.
        try LMDBError.check(mdb_txn_commit(transaction), "opening the databases of \(file.path)")
    }

    /// Begins to read a file that no other thread knows yet. Other processes do, so it may have outgrown its map since it was opened.
    private static func beginFirstRead(of file: EnvironmentFile) throws -> OpaquePointer? {
        var transaction: OpaquePointer?
        var attempts = 0
        while true {
            let code = try file.open.beginRead(&transaction)
            attempts += 1
            guard code == MDB_MAP_RESIZED, attempts < maxAttempts else {
                try LMDBError.check(code, "beginning to read \(file.path)")
                return transaction
            }
            try file.replaceMap(size: file.storedMapSize())
        }
    }

    /// Whether a write that has begun may go on: not if the file was succeeded while it waited for its turn. If not, or if that
    /// cannot be told, it has been ended.
    func mayWrite(to file: EnvironmentFile, _ transaction: OpaquePointer) throws -> Bool {
        guard let folder else { return true }
        do {
            if try isCurrent(file) {
                if !file.isSettled { try settle(file, in: folder) }
                return true
            }
        } catch {
            mdb_txn_abort(transaction)
            throw error
        }
        mdb_txn_abort(transaction)
        return false
    }

    /// Completes what the process that made this file may have been killed before. The caller has the file's write lock.
    private func settle(_ file: EnvironmentFile, in folder: GenerationFolder) throws {
        // What is acknowledged from now on must not go with a name that the device has yet to hear of.
        if file.generation > 1 { try folder.synchronize() }
        // They are of no use, and no harm is done if they stay.
        try? folder.removeObsolete(beside: file.generation)
        file.isSettled = true
    }
}

// MARK: - Opening the newest file

extension Environment {
    /// Opens the newest generation of an environment that may have successors.
    static func openNewest(
        _ path: String, _ configuration: Configuration
    ) throws -> (environment: Environment, isShared: Bool) {
        let folder = try GenerationFolder(of: path)
        return try EnvironmentRegistry.shared.environment(of: folder.key) { checkUnopened in
            let file = try openGeneration(in: folder, configuration, after: nil, checkUnopened)
            let firstPath = folder.path(of: folder.names.first)
            return (Environment(file: file, path: firstPath, configuration: configuration, folder: folder), file)
        }
    }

    /// Opens the newest file, creates the first one if there is none and `former` is nil. The caller holds the registry's lock.
    ///
    /// - Parameter former: the file that was current so far. Only a later generation can take its place.
    private static func openGeneration(
        in folder: GenerationFolder, _ configuration: Configuration, after former: EnvironmentFile?,
        _ checkUnopened: (FileIdentity, String) throws -> Void
    ) throws -> EnvironmentFile {
        var attempts = 0
        var highest = 0
        while attempts < maxAttempts {
            let newest = try folder.newest()
            // Where others get on, this process will, too.
            attempts = newest ?? 0 > highest ? 0 : attempts + 1
            highest = max(highest, newest ?? 0)
            if let former, newest ?? 0 <= former.generation {
                throw LMDBError(
                    .noSuchFile, "\(former.path) was removed or replaced while it is open; close it and open it again")
            }
            let generation = newest ?? 1
            let name = folder.names.name(of: generation)
            let path = folder.path(of: name)
            do {
                _ = try folder.identity(of: name)  // no link
                let isCreating = newest == nil && !configuration.isReadOnly
                let opened = try open(path, configuration, isCreating: isCreating, checkUnopened)
                // It may have been succeeded while it was opened, and its lock file removed: then this is not the lock file that
                // others use.
                if try folder.newest() == generation, try folder.identity(of: name) == opened.identity {
                    return EnvironmentFile(
                        opened.file, path: path, identity: opened.identity, generation: generation, names: folder.names)
                }
                opened.file.close()
            } catch {
                // Any error may come of the file's removal halfway through. If it is still the newest, the error is its own.
                guard try folder.newest() != newest else { throw error }
            }
        }
        throw LMDBError(.busy, "\(folder.path(of: folder.names.first)) changes faster than this process can follow")
    }

    private static func open(
        _ path: String, _ configuration: Configuration, isCreating: Bool,
        _ checkUnopened: (FileIdentity, String) throws -> Void
    ) throws -> (file: OpenFile, identity: FileIdentity) {
        var flags = (configuration.isReadOnly ? O_RDONLY : O_RDWR) | O_NOFOLLOW
        if isCreating { flags |= O_CREAT }
        let descriptor = try FileDescriptor(path: path, flags: flags, mode: configuration.fileMode)
        let identity = try regularFile(descriptor, path)
        try checkUnopened(identity, path)
        return (try openFile(descriptor.number, path, configuration, identity), identity)
    }
}
