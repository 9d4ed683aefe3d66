import CLMDB

extension Environment {
    /// Opens one of the environment's databases.
    ///
    /// A handle is opened once per environment and good for every transaction that begins later. Open handles outside of
    /// transactions: inside one, only those that are open already can be had.
    ///
    /// - Parameters:
    ///   - name: of the database; nil for the unnamed one, which also holds the names of all others as keys.
    ///   - keys: how keys are encoded. The file does not record it: the caller must name the same codec every time.
    ///   - values: how values are encoded; the same goes for it.
    ///   - creating: whether to create the database if there is none of that name.
    ///   - sealed: whether values have checksums, which cover key and value and are checked whenever a value is read. The file does not
    ///     record that either.
    /// - Throws: ``LMDBError/Code/notFound`` if there is none; ``LMDBError/Code/databasesFull`` beyond `maxDatabases`;
    ///   ``LMDBError/Code/incompatible`` for one with duplicate keys or native integer keys, or a name that is a record;
    ///   ``LMDBError/Code/busy`` inside a transaction.
    public func database<Key: KeyCodec, Value: ValueCodec>(
        named name: String?, keys: Key.Type, values: Value.Type, creating: Bool = false, sealed: Bool = false
    ) throws -> Database<Key, Value> {
        try checkProcess()
        if let name { try checkName(name) }
        let known = state.withLock { $0.databases[name] }
        let identifier = try known ?? openDatabase(name, creating: creating && !configuration.isReadOnly)
        return Database(
            environment: self, name: name, identifier: identifier, seal: sealed ? ValueSeal(database: name) : nil)
    }

    private func checkName(_ name: String) throws {
        guard !name.utf8.contains(0), (1...LMDBLimits.maxKeySize).contains(name.utf8.count) else {
            throw LMDBError(
                .badValueSize, "a database name has 1 to \(LMDBLimits.maxKeySize) bytes of UTF-8, none of them zero")
        }
    }

    private func openDatabase(_ name: String?, creating: Bool) throws -> MDB_dbi {
        guard !state.withLock({ $0.file }).readers.isCurrentThreadInside() else {
            throw LMDBError(.busy, "databases are opened outside of transactions, and this thread is in one")
        }
        // The lock keeps others from opening handles meanwhile, which LMDB forbids.
        try writerLock.lock()
        defer { writerLock.unlock() }
        while true {
            if let identifier = try openExisting(name) { return identifier }
            guard creating else {
                throw LMDBError(.notFound, "\(path) has no \(describe(name))")
            }
            let (identifier, file) = try writeLocked { transaction in
                do {
                    return try Self.openHandle(transaction.handle.pointer, name, flags: UInt32(MDB_CREATE), path)
                } catch let error as LMDBError {
                    throw transaction.state.pointee.note(error)
                }
            }
            if remember(name, identifier, openIn: file) { return identifier }
        }
    }

    /// The handle of a database that exists, nil if none does.
    private func openExisting(_ name: String?) throws -> MDB_dbi? {
        while true {
            if let known = state.withLock({ $0.databases[name] }) { return known }
            let read = try beginRead()
            defer { read.file.readers.leave(read.slot) }
            do {
                let identifier = try Self.openHandle(read.transaction, name, flags: 0, path)
                // Only a commit keeps a new handle, and it ends the transaction for good.
                read.slot.pointee.transaction = nil
                try LMDBError.check(mdb_txn_commit(read.transaction), "opening \(describe(name)) of \(path)")
                if remember(name, identifier, openIn: read.file) { return identifier }
            } catch let error as LMDBError where error.code == .notFound {
                mdb_txn_reset(read.transaction)
                return nil
            } catch {
                if read.slot.pointee.transaction != nil { mdb_txn_reset(read.transaction) }
                throw error
            }
        }
    }

    static func openHandle(
        _ transaction: OpaquePointer?, _ name: String?, flags: UInt32, _ path: String
    ) throws -> MDB_dbi {
        var identifier: MDB_dbi = 0
        let code = mdb_dbi_open(transaction, name, flags, &identifier)
        if code == MDB_DBS_FULL {
            throw LMDBError(.databasesFull, "\(path): \(describe(name)) is one more than the environment's maxDatabases")
        }
        try LMDBError.check(code, "opening \(describe(name)) of \(path)")
        var kind: UInt32 = 0
        try LMDBError.check(mdb_dbi_flags(transaction, identifier, &kind), "opening \(describe(name)) of \(path)")
        guard kind == 0 else {
            throw LMDBError(
                .incompatible, "\(describe(name)) of \(path) sorts or repeats its keys in a way that is not supported")
        }
        return identifier
    }

    /// - Returns: false when the file was succeeded meanwhile. Then the handle is to be opened again in its successor.
    private func remember(_ name: String?, _ identifier: MDB_dbi, openIn file: EnvironmentFile) -> Bool {
        state.withLock { state in
            guard state.file === file else { return false }
            state.databases[name] = identifier
            return true
        }
    }
}

func describe(_ name: String?) -> String {
    name.map { "database \"\($0)\"" } ?? "unnamed database"
}
