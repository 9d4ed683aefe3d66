public import CLMDB

/// One ordered map from keys to values within an environment, typed by how both are encoded.
///
/// A value of this type is a handle: cheap to copy, good in every thread and in every transaction of its environment that began
/// after it was opened. It keeps the environment open. What only reads takes a transaction of either kind, what changes
/// something a ``WriteTransaction``.
public struct Database<Key: KeyCodec, Value: ValueCodec>: Sendable {
    /// The environment that the database belongs to.
    public let environment: Environment

    /// The database's name; nil for the unnamed one.
    public let name: String?

    @usableFromInline let identifier: MDB_dbi

    /// What checksums of its values begin with; nil where values have none.
    @usableFromInline let seal: ValueSeal?

    init(environment: Environment, name: String?, identifier: MDB_dbi, seal: ValueSeal?) {
        self.environment = environment
        self.name = name
        self.identifier = identifier
        self.seal = seal
    }
}

// MARK: - Reading

extension Database {
    /// The value of `key`, nil if there is none.
    ///
    /// - Complexity: O(log *n*).
    @inlinable
    public func get(_ key: Key.Value, in transaction: borrowing some Transaction & ~Copyable) throws -> Value.Value? {
        let handle = transaction.handle
        return try Key.withBytes(of: key) { key in
            guard let bytes = try find(key, handle) else { return nil }
            return try Value.decode(bytes)
        }
    }

    /// Lends the bytes of the value of `key`, without a copy. They lie in the memory map and are gone when `body` returns.
    ///
    /// Bytes of a value larger than half a page begin 16 bytes into a page; those of others have no alignment but 2.
    ///
    /// - Returns: what `body` returns; nil, without running it, if there is no such key.
    @inlinable
    public func withValue<R>(
        _ key: Key.Value, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (UnsafeRawBufferPointer) throws -> R
    ) throws -> R? {
        let handle = transaction.handle
        guard let bytes = try Key.withBytes(of: key, { try find($0, handle) }) else { return nil }
        return try body(bytes)
    }

    /// The bytes of the value of `key`, in the memory map, nil if there is none.
    ///
    /// Unsafe: they must not be touched when the transaction has ended, nor, in a write transaction, after its next change.
    /// Prefer ``withValue(_:in:_:)``; this is for gathering many values of one read, say to advise the system of all of them.
    @inlinable
    public func unsafeValue(
        _ key: Key.Value, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> UnsafeRawBufferPointer? {
        let handle = transaction.handle
        return try Key.withBytes(of: key) { try find($0, handle) }
    }

    /// Whether there is a value for `key`, whatever its checksum.
    @inlinable
    public func contains(_ key: Key.Value, in transaction: borrowing some Transaction & ~Copyable) throws -> Bool {
        let handle = transaction.handle
        return try Key.withBytes(of: key) { try findStored($0, handle) } != nil
    }

    /// The number of keys.
    ///
    /// - Complexity: O(1).
    public func count(in transaction: borrowing some Transaction & ~Copyable) throws -> Int {
        let handle = transaction.handle
        try checkEnvironment(handle)
        var statistics = MDB_stat()
        let result = mdb_stat(handle.pointer, identifier, &statistics)
        guard result == MDB_SUCCESS else { throw failure(result, "counting keys") }
        return Int(statistics.ms_entries)
    }

    @inlinable
    func find(_ key: UnsafeRawBufferPointer, _ handle: TransactionHandle) throws -> UnsafeRawBufferPointer? {
        try findStored(key, handle).map { try opened($0, of: key) }
    }

    /// The value as it is stored, with its checksum if it has one.
    @inlinable
    func findStored(_ key: UnsafeRawBufferPointer, _ handle: TransactionHandle) throws -> UnsafeRawBufferPointer? {
        try checkKey(key)
        try checkEnvironment(handle)
        var key = MDB_val(key)
        var value = MDB_val()
        let result = mdb_get(handle.pointer, identifier, &key, &value)
        if result == MDB_SUCCESS { return UnsafeRawBufferPointer(value) }
        if result == MDB_NOTFOUND { return nil }
        throw failure(result, "reading")
    }

    /// A value without its checksum, if it has one, which is then as it should be.
    ///
    /// - Throws: ``LMDBError/Code/corrupted``.
    @inlinable
    func opened(_ value: UnsafeRawBufferPointer, of key: UnsafeRawBufferPointer) throws -> UnsafeRawBufferPointer {
        guard let seal else { return value }
        guard let opened = seal.open(value, of: key) else { throw brokenSeal() }
        return opened
    }
}

// MARK: - Writing

extension Database {
    /// Stores `value` under `key`, in place of what was there.
    @inlinable
    public func put(_ key: Key.Value, _ value: Value.Value, in transaction: borrowing WriteTransaction) throws {
        _ = try store(key, value, flags: 0, transaction.handle, transaction.state)
    }

    /// Stores `value` under `key` unless the key is there already.
    ///
    /// - Returns: whether the value was stored.
    @inlinable
    public func insert(_ key: Key.Value, _ value: Value.Value, in transaction: borrowing WriteTransaction) throws -> Bool {
        try store(key, value, flags: UInt32(MDB_NOOVERWRITE), transaction.handle, transaction.state)
    }

    /// Stores `value` under a `key` that sorts after all others, which fills pages to the brim and compares no keys.
    ///
    /// - Throws: ``LMDBError/Code/keyExists`` for a key that does not sort after the last one; nothing is stored then.
    @inlinable
    public func append(_ key: Key.Value, _ value: Value.Value, in transaction: borrowing WriteTransaction) throws {
        guard try store(key, value, flags: UInt32(MDB_APPEND), transaction.handle, transaction.state) else {
            throw failure(MDB_KEYEXIST, "appending a key that does not sort after the last one")
        }
    }

    /// Makes room for a value of `byteCount` bytes under `key`, in place of what was there, and has `fill` write it there.
    ///
    /// `fill` gets memory of undefined content that goes to the file as it leaves it: it must write all of it, and must not
    /// change anything else in the transaction. If it throws, the transaction cannot be committed any more.
    @inlinable
    public func reserve(
        _ key: Key.Value, byteCount: Int, in transaction: borrowing WriteTransaction,
        fill: (UnsafeMutableRawBufferPointer) throws -> Void
    ) throws {
        let (handle, state) = (transaction.handle, transaction.state)
        guard byteCount >= 0 else { throw badValueSize(byteCount) }
        try Key.withBytes(of: key) { key in
            var room = MDB_val(UnsafeRawBufferPointer(start: nil, count: 0))
            room.mv_size = byteCount + (seal == nil ? 0 : ValueSeal.byteCount)
            _ = try store(key, &room, flags: UInt32(MDB_RESERVE), handle, state)
            state.pointee.isFilling = true
            defer { state.pointee.isFilling = false }
            do {
                try fill(UnsafeMutableRawBufferPointer(start: room.mv_data, count: byteCount))
            } catch {
                _ = state.pointee.note(failure(MDB_BAD_TXN, "committing after a value was reserved and not filled"))
                throw error
            }
            seal?.close(UnsafeMutableRawBufferPointer(start: room.mv_data, count: room.mv_size), of: key)
        }
    }

    /// Removes `key` and its value.
    ///
    /// - Returns: whether the key was there.
    @inlinable
    public func delete(_ key: Key.Value, in transaction: borrowing WriteTransaction) throws -> Bool {
        let (handle, state) = (transaction.handle, transaction.state)
        return try Key.withBytes(of: key) { key in
            try checkKey(key)
            try checkWritable(handle, state)
            var key = MDB_val(key)
            let result = mdb_del(handle.pointer, identifier, &key, nil)
            if result == MDB_SUCCESS { return true }
            if result == MDB_NOTFOUND { return false }
            throw state.pointee.note(failure(result, "deleting"))
        }
    }

    /// Removes all keys and values.
    public func clear(in transaction: borrowing WriteTransaction) throws {
        try checkWritable(transaction.handle, transaction.state)
        let result = mdb_drop(transaction.handle.pointer, identifier, 0)
        guard result == MDB_SUCCESS else { throw transaction.state.pointee.note(failure(result, "clearing")) }
    }

    @inlinable
    func store(
        _ key: Key.Value, _ value: Value.Value, flags: UInt32, _ handle: TransactionHandle,
        _ state: UnsafeMutablePointer<WriteState>
    ) throws -> Bool {
        try Key.withBytes(of: key) { key in
            try Value.withBytes(of: value) { value in
                var room = MDB_val(value)
                guard let seal else { return try store(key, &room, flags: flags, handle, state) }
                room.mv_size += ValueSeal.byteCount
                guard try store(key, &room, flags: flags | UInt32(MDB_RESERVE), handle, state) else { return false }
                let bytes = UnsafeMutableRawBufferPointer(start: room.mv_data, count: room.mv_size)
                bytes.copyMemory(from: value)
                seal.close(bytes, of: key)
                return true
            }
        }
    }

    /// - Returns: whether the value was stored; not if `flags` ask not to replace a key that is there.
    @inlinable
    func store(
        _ key: UnsafeRawBufferPointer, _ value: inout MDB_val, flags: UInt32,
        _ handle: TransactionHandle, _ state: UnsafeMutablePointer<WriteState>
    ) throws -> Bool {
        try checkKey(key)
        guard value.mv_size <= LMDBLimits.maxValueSize else { throw badValueSize(Int(clamping: value.mv_size)) }
        try checkWritable(handle, state)
        var key = MDB_val(key)
        let result = mdb_put(handle.pointer, identifier, &key, &value, flags)
        if result == MDB_SUCCESS { return true }
        if result == MDB_KEYEXIST { return false }
        throw state.pointee.note(failure(result, "storing"))
    }
}

// MARK: - Checks and errors

extension Database {
    @inlinable
    @inline(__always)
    func checkKey(_ key: UnsafeRawBufferPointer) throws {
        guard key.count > 0, key.count <= LMDBLimits.maxKeySize else { throw badKeySize(key.count) }
    }

    /// LMDB knows databases by number, so another environment's transaction would read another database without a word.
    @inlinable
    @inline(__always)
    func checkEnvironment(_ handle: TransactionHandle) throws {
        guard handle.environment == ObjectIdentifier(environment) else { throw wrongEnvironment() }
    }

    @inlinable
    @inline(__always)
    func checkWritable(_ handle: TransactionHandle, _ state: UnsafeMutablePointer<WriteState>) throws {
        try checkEnvironment(handle)
        guard !state.pointee.isFilling else { throw isFilling() }
    }

    @usableFromInline
    @inline(never)
    func wrongEnvironment() -> LMDBError {
        LMDBError(.badDatabase, "\(describe(name)) belongs to \(environment.path), the transaction to another environment")
    }

    @usableFromInline
    @inline(never)
    func brokenSeal() -> LMDBError {
        LMDBError(.corrupted, "a record in \(describe(name)) of \(environment.path) does not match its checksum")
    }

    @usableFromInline
    @inline(never)
    func isFilling() -> LMDBError {
        LMDBError(.busy, "\(describe(name)) was changed while a reserved value was being filled")
    }

    @usableFromInline
    @inline(never)
    func badValueSize(_ count: Int) -> LMDBError {
        LMDBError(.badValueSize, "a value has \(count) bytes; values have 0 to \(LMDBLimits.maxValueSize)")
    }

    @usableFromInline
    @inline(never)
    func failure(_ code: Int32, _ doing: StaticString) -> LMDBError {
        let context = "\(doing) in \(describe(name)) of \(environment.path)"
        let code = LMDBError.Code(rawValue: code)
        // What LMDB says for a handle that the transaction does not know.
        if code == .invalidArgument {
            return LMDBError(.badDatabase, "\(context): the database was opened after the transaction began")
        }
        return LMDBError(code, context)
    }
}

extension MDB_val {
    @inlinable
    init(_ bytes: UnsafeRawBufferPointer) {
        self.init(mv_size: bytes.count, mv_data: UnsafeMutableRawPointer(mutating: bytes.baseAddress))
    }
}

extension UnsafeRawBufferPointer {
    @inlinable
    init(_ value: MDB_val) {
        self.init(start: value.mv_data, count: value.mv_size)
    }
}
