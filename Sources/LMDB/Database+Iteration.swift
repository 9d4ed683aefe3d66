/// Whether an iteration goes on.
public enum IterationStep: Hashable, Sendable {
    case `continue`
    case stop
}

extension Database {
    /// Runs `body` for each entry of `range`, in the order of the keys' bytes or against it.
    ///
    /// `body` must not change this database in the same transaction; to remove entries use ``delete(in:in:)`` or a ``Cursor``.
    @inlinable
    public func forEach(
        in range: KeyRange<Key>, reversed: Bool = false, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (Key.Value, Value.Value) throws -> IterationStep
    ) throws {
        try forEachRaw(in: range, reversed: reversed, in: transaction) { key, value in
            try body(try Key.decode(key), try Value.decode(value))
        }
    }

    /// Like ``forEach(in:reversed:in:_:)``, with the bytes as they lie in the memory map. They are gone when `body` returns.
    @inlinable
    public func forEachRaw(
        in range: KeyRange<Key>, reversed: Bool = false, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws -> IterationStep
    ) throws {
        try move(along: range, reversed: reversed, in: transaction) { cursor in
            try body(cursor.rawKey, try cursor.rawValue)
        }
    }

    /// Like ``forEachRaw(in:reversed:in:_:)``, and passes over entries of a sealed database that do not match their checksum.
    ///
    /// - Parameter onDamage: called with the key of each of those.
    public func forEachRaw(
        in range: KeyRange<Key>, in transaction: borrowing some Transaction & ~Copyable,
        onDamage: (_ key: UnsafeRawBufferPointer) throws -> Void,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws -> IterationStep
    ) throws {
        try move(along: range, reversed: false, in: transaction) { cursor in
            if cursor.isSound { return try body(cursor.rawKey, try cursor.rawValue) }
            try onDamage(cursor.rawKey)
            return .continue
        }
    }

    @inlinable
    func move(
        along range: KeyRange<Key>, reversed: Bool, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (borrowing Cursor<Key, Value>) throws -> IterationStep
    ) throws {
        let bounds = try range.encoded()
        try withCursor(in: transaction) { cursor in
            if reversed {
                try cursor.moveToEnd(of: bounds)
                while cursor.isAtEntry, bounds.isNotBefore(cursor.rawKey), try body(cursor) == .continue {
                    try cursor.moveToPrevious()
                }
            } else {
                try cursor.moveToStart(of: bounds)
                while cursor.isAtEntry, bounds.isNotAfter(cursor.rawKey), try body(cursor) == .continue {
                    try cursor.moveToNext()
                }
            }
        }
    }

    /// Removes the entries of `range`.
    ///
    /// - Returns: how many there were.
    @discardableResult
    public func delete(in range: KeyRange<Key>, in transaction: borrowing WriteTransaction) throws -> Int {
        let bounds = try range.encoded()
        return try withCursor(in: transaction) { cursor in
            var count = 0
            try cursor.moveToStart(of: bounds)
            while cursor.isAtEntry, bounds.isNotAfter(cursor.rawKey) {
                try cursor.delete()
                count += 1
                try cursor.moveToNext()
            }
            return count
        }
    }

    // MARK: - Nearest entries

    /// The first entry of the database.
    public func firstEntry(
        in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (key: Key.Value, value: Value.Value)? {
        try withCursor(in: transaction) { cursor in
            try cursor.moveToFirst()
            return try cursor.entry()
        }
    }

    /// The last entry of the database.
    public func lastEntry(
        in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (key: Key.Value, value: Value.Value)? {
        try withCursor(in: transaction) { cursor in
            try cursor.moveToLast()
            return try cursor.entry()
        }
    }

    /// The last key of the database.
    public func lastKey(in transaction: borrowing some Transaction & ~Copyable) throws -> Key.Value? {
        try withCursor(in: transaction) { cursor in
            try cursor.moveToLast()
            return cursor.isAtEntry ? try Key.decode(cursor.rawKey) : nil
        }
    }

    /// The first entry whose key does not sort before `key`.
    public func firstEntry(
        atOrAfter key: Key.Value, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (key: Key.Value, value: Value.Value)? {
        try withCursor(in: transaction) { cursor in
            try cursor.move(toFirstAtOrAfter: key)
            return try cursor.entry()
        }
    }

    /// The last entry whose key does not sort after `key`.
    public func lastEntry(
        atOrBefore key: Key.Value, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (key: Key.Value, value: Value.Value)? {
        try withCursor(in: transaction) { cursor in
            try cursor.move(toLastAtOrBefore: key)
            return try cursor.entry()
        }
    }

    /// Lends the bytes of the first entry whose key does not sort before `rawKey`: key, then value.
    ///
    /// - Returns: what `body` returns; nil, without running it, if there is no such entry.
    public func withFirstEntry<R>(
        atOrAfter rawKey: UnsafeRawBufferPointer, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws -> R
    ) throws -> R? {
        try withCursor(in: transaction) { cursor in
            try cursor.move(toFirstAtOrAfter: rawKey) ? try body(cursor.rawKey, try cursor.rawValue) : nil
        }
    }

    /// Lends the bytes of the last entry whose key does not sort after `rawKey`: key, then value.
    ///
    /// - Returns: what `body` returns; nil, without running it, if there is no such entry.
    public func withLastEntry<R>(
        atOrBefore rawKey: UnsafeRawBufferPointer, in transaction: borrowing some Transaction & ~Copyable,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws -> R
    ) throws -> R? {
        try withCursor(in: transaction) { cursor in
            try cursor.move(toLastAtOrBefore: rawKey) ? try body(cursor.rawKey, try cursor.rawValue) : nil
        }
    }
}

extension Cursor {
    /// Moves to the first entry that does not lie before the range. It may lie after it.
    @usableFromInline
    mutating func moveToStart(of range: EncodedRange) throws {
        try range.lower.withUnsafeBytes { lower in
            guard !lower.isEmpty else { return _ = try moveToFirst() }
            try move(toFirstAtOrAfter: lower)
            if isAtEntry && !range.includesLower && compareBytes(rawKey, lower) == 0 { try moveToNext() }
        }
    }

    /// Moves to the last entry that does not lie after the range. It may lie before it.
    @usableFromInline
    mutating func moveToEnd(of range: EncodedRange) throws {
        guard let upper = range.upper else { return _ = try moveToLast() }
        try upper.withUnsafeBytes { upper in
            // No key sorts before an empty one; the cursor has not moved and is at no entry.
            guard !upper.isEmpty else { return }
            try move(toLastAtOrBefore: upper)
            if isAtEntry && !range.includesUpper && compareBytes(rawKey, upper) == 0 { try moveToPrevious() }
        }
    }
}
