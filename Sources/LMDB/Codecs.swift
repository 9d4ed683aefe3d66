/// How values of a Swift type are written as bytes and read back.
///
/// A codec is a type without instances; a ``Database`` names one for its keys and one for its values. Codecs of fixed-size types
/// should lend bytes from the stack, so that neither a lookup nor a store allocates.
public protocol ByteCodec {
    /// What the bytes mean.
    associatedtype Value

    /// Lends the bytes of `value` to `body`, for the duration of the call.
    ///
    /// - Throws: what `body` throws, and an error of the codec's own where a value has no encoding.
    static func withBytes<R>(of value: Value, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R

    /// The value that `bytes` encode. The bytes belong to the database, have no particular alignment and are gone
    /// when the call returns.
    ///
    /// - Throws: an error, never a trap, where they encode none: they come from a file.
    static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Value
}

/// A codec for keys: bytes, compared one by one as unsigned numbers, sort as the values should.
///
/// Encodings have 1 to ``LMDBLimits/maxKeySize`` bytes.
public protocol KeyCodec: ByteCodec {}

/// A codec for values. Encodings have 0 to ``LMDBLimits/maxValueSize`` bytes.
public protocol ValueCodec: ByteCodec {}

/// The sizes that LMDB itself sets a bound to.
public enum LMDBLimits {
    /// The longest key, in bytes.
    public static var maxKeySize: Int { @inlinable get { 511 } }

    /// The longest value, in bytes.
    public static var maxValueSize: Int { @inlinable get { 0xffff_ffff } }
}

// MARK: - Numbers

/// An unsigned 64-bit number, most significant byte first, so that keys sort as numbers do.
public enum BigEndianUInt64: KeyCodec, ValueCodec {
    @inlinable
    public static func withBytes<R>(of value: UInt64, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withUnsafeBytes(of: value.bigEndian, body)
    }

    @inlinable
    public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> UInt64 {
        guard bytes.count == 8 else { throw wrongSize(bytes.count, expected: 8) }
        return UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self))
    }
}

/// An unsigned 32-bit number, most significant byte first, so that keys sort as numbers do.
public enum BigEndianUInt32: KeyCodec, ValueCodec {
    @inlinable
    public static func withBytes<R>(of value: UInt32, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withUnsafeBytes(of: value.bigEndian, body)
    }

    @inlinable
    public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> UInt32 {
        guard bytes.count == 4 else { throw wrongSize(bytes.count, expected: 4) }
        return UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
    }
}

// MARK: - Bytes and text

/// Bytes as they are.
public enum RawBytes: KeyCodec, ValueCodec {
    @inlinable
    public static func withBytes<R>(of value: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try value.withUnsafeBytes(body)
    }

    @inlinable
    public static func decode(_ bytes: UnsafeRawBufferPointer) -> [UInt8] { [UInt8](bytes) }
}

/// Text as UTF-8. Keys sort by Unicode scalar, which is not how `String` compares.
public enum UTF8String: KeyCodec, ValueCodec {
    @inlinable
    public static func withBytes<R>(of value: String, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        var value = value
        return try value.withUTF8 { try body(UnsafeRawBufferPointer($0)) }
    }

    @inlinable
    public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw notText(bytes.count) }
        return text
    }

    @usableFromInline
    static func notText(_ count: Int) -> LMDBError {
        LMDBError(.corrupted, "\(count) stored bytes are not UTF-8")
    }
}

/// No bytes at all, for databases whose keys say everything.
public enum EmptyValue: ValueCodec {
    @inlinable
    public static func withBytes<R>(of value: Void, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: nil, count: 0))
    }

    @inlinable
    public static func decode(_ bytes: UnsafeRawBufferPointer) throws {
        guard bytes.isEmpty else { throw wrongSize(bytes.count, expected: 0) }
    }
}

@usableFromInline
func wrongSize(_ count: Int, expected: Int) -> LMDBError {
    LMDBError(.corrupted, "a stored item has \(count) bytes where \(expected) are expected")
}
