public import CLMDB

/// A place in a database: seeks to a key and steps from there, without a copy.
///
/// Lent by ``Database/withCursor(in:_:)``. One cursor serves any number of seeks, and seeking near where it is costs less than
/// looking up from the root. The bytes it shows lie in the memory map: they are good until it moves or the transaction changes
/// something, and never beyond the transaction.
public struct Cursor<Key: KeyCodec, Value: ValueCodec>: ~Copyable {
    @usableFromInline let database: Database<Key, Value>
    @usableFromInline let pointer: OpaquePointer
    @usableFromInline let writeState: UnsafeMutablePointer<WriteState>?
    @usableFromInline var key = MDB_val()
    @usableFromInline var value = MDB_val()

    /// Whether the cursor is at an entry. It is not at first, after a move that found none, and after a deletion.
    @inlinable public var isAtEntry: Bool { hasEntry }
    @usableFromInline var hasEntry = false

    @usableFromInline
    init(_ database: Database<Key, Value>, _ handle: TransactionHandle) throws {
        try database.checkEnvironment(handle)
        var cursor: OpaquePointer?
        let result = mdb_cursor_open(handle.pointer, database.identifier, &cursor)
        guard result == MDB_SUCCESS, let cursor else { throw database.failure(result, "opening a cursor") }
        self.database = database
        pointer = cursor
        writeState = handle.writeState
    }

    deinit { mdb_cursor_close(pointer) }

    // MARK: - The entry

    /// The bytes of the key; none where the cursor is at no entry.
    @inlinable
    public var rawKey: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: key.mv_data, count: isAtEntry ? key.mv_size : 0) }

    /// The bytes of the value; none where the cursor is at no entry.
    ///
    /// - Throws: ``LMDBError/Code/corrupted`` where the database is sealed and the checksum does not match.
    @inlinable
    public var rawValue: UnsafeRawBufferPointer {
        get throws {
            guard isAtEntry else { return UnsafeRawBufferPointer(start: nil, count: 0) }
            return try database.opened(UnsafeRawBufferPointer(value), of: rawKey)
        }
    }

    /// Whether the entry's value matches its checksum, if it has one.
    var isSound: Bool { database.seal.map { $0.open(UnsafeRawBufferPointer(value), of: rawKey) != nil } ?? true }

    /// The entry, decoded; nil where the cursor is at none.
    public func entry() throws -> (key: Key.Value, value: Value.Value)? {
        guard isAtEntry else { return nil }
        return (try Key.decode(rawKey), try Value.decode(try rawValue))
    }

    // MARK: - Moving

    /// Moves to the first entry. Like every move it returns whether there is one.
    @discardableResult
    @inlinable
    public mutating func moveToFirst() throws -> Bool { try move(MDB_FIRST) }

    /// Moves to the last entry.
    @discardableResult
    @inlinable
    public mutating func moveToLast() throws -> Bool { try move(MDB_LAST) }

    /// Moves to the entry after this one; to the first from no entry; after a deletion, to the one that followed.
    @discardableResult
    @inlinable
    public mutating func moveToNext() throws -> Bool { try move(MDB_NEXT) }

    /// Moves to the entry before this one; to the last from no entry.
    @discardableResult
    @inlinable
    public mutating func moveToPrevious() throws -> Bool { try move(MDB_PREV) }

    /// Moves to the entry of exactly `rawKey`.
    @discardableResult
    public mutating func move(to rawKey: UnsafeRawBufferPointer) throws -> Bool {
        try database.checkKey(rawKey)
        key = MDB_val(rawKey)
        return try move(MDB_SET_KEY)
    }

    /// Moves to the first entry whose key does not sort before `rawKey`.
    @discardableResult
    public mutating func move(toFirstAtOrAfter rawKey: UnsafeRawBufferPointer) throws -> Bool {
        try database.checkKey(rawKey)
        key = MDB_val(rawKey)
        return try move(MDB_SET_RANGE)
    }

    /// Moves to the last entry whose key does not sort after `rawKey`.
    @discardableResult
    public mutating func move(toLastAtOrBefore rawKey: UnsafeRawBufferPointer) throws -> Bool {
        guard try move(toFirstAtOrAfter: rawKey) else { return try moveToLast() }
        return try compareBytes(self.rawKey, rawKey) == 0 || moveToPrevious()
    }

    /// Moves to the entry of exactly `key`.
    @discardableResult
    @inlinable
    public mutating func move(to key: Key.Value) throws -> Bool {
        try Key.withBytes(of: key) { try move(to: $0) }
    }

    /// Moves to the first entry whose key does not sort before `key`.
    @discardableResult
    @inlinable
    public mutating func move(toFirstAtOrAfter key: Key.Value) throws -> Bool {
        try Key.withBytes(of: key) { try move(toFirstAtOrAfter: $0) }
    }

    /// Moves to the last entry whose key does not sort after `key`.
    @discardableResult
    @inlinable
    public mutating func move(toLastAtOrBefore key: Key.Value) throws -> Bool {
        try Key.withBytes(of: key) { try move(toLastAtOrBefore: $0) }
    }

    @inlinable
    mutating func move(_ operation: MDB_cursor_op) throws -> Bool {
        let result = mdb_cursor_get(pointer, &key, &value, operation)
        hasEntry = result == MDB_SUCCESS
        if !hasEntry && result != MDB_NOTFOUND { throw database.failure(result, "moving a cursor") }
        return isAtEntry
    }

    // MARK: - Changing

    /// Removes the entry. The cursor is then at none, and ``moveToNext()`` leads to the entry that followed.
    ///
    /// - Throws: ``LMDBError/Code/permissionDenied`` in a read; ``LMDBError/Code/notFound`` where the cursor is at no entry.
    public mutating func delete() throws {
        guard let writeState else { throw database.failure(LMDBError.Code.permissionDenied.rawValue, "deleting in a read") }
        guard !writeState.pointee.isFilling else { throw database.isFilling() }
        guard isAtEntry else { throw database.failure(MDB_NOTFOUND, "deleting where no entry is") }
        let result = mdb_cursor_del(pointer, 0)
        guard result == MDB_SUCCESS else { throw writeState.pointee.note(database.failure(result, "deleting")) }
        hasEntry = false
    }
}

extension Database {
    /// Lends a cursor, at no entry to begin with.
    @inlinable
    public func withCursor<R>(
        in transaction: borrowing some Transaction & ~Copyable, _ body: (inout Cursor<Key, Value>) throws -> R
    ) throws -> R {
        var cursor = try Cursor(self, transaction.handle)
        return try body(&cursor)
    }
}
