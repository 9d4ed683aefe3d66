// Loads and stores of the records that schema/records.json describes: little-endian, at any alignment.
// Inlinable: called for every field of a record, from other modules too.
// The callers check bounds once per record; the preconditions of the raw buffer pointers back them up.

/// A type with a fixed little-endian form.
@usableFromInline
package protocol LittleEndianStorable {
    static func load(from bytes: UnsafeRawBufferPointer, at offset: Int) -> Self
    func store(to bytes: UnsafeMutableRawBufferPointer, at offset: Int)
}

extension LittleEndianStorable where Self: FixedWidthInteger & BitwiseCopyable {
    @inlinable @inline(__always) package static func load(from bytes: UnsafeRawBufferPointer, at offset: Int) -> Self {
        Self(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Self.self))
    }

    @inlinable package func store(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.storeBytes(of: littleEndian, toByteOffset: offset, as: Self.self)
    }
}

extension UInt8: LittleEndianStorable {}
extension UInt16: LittleEndianStorable {}
extension UInt32: LittleEndianStorable {}
extension UInt64: LittleEndianStorable {}
extension Int32: LittleEndianStorable {}
extension Int64: LittleEndianStorable {}

extension Float: LittleEndianStorable {
    @inlinable @inline(__always) package static func load(from bytes: UnsafeRawBufferPointer, at offset: Int) -> Float {
        Float(bitPattern: UInt32.load(from: bytes, at: offset))
    }

    @inlinable package func store(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bitPattern.store(to: bytes, at: offset)
    }
}

extension Double: LittleEndianStorable {
    @inlinable @inline(__always) package static func load(from bytes: UnsafeRawBufferPointer, at offset: Int) -> Double {
        Double(bitPattern: UInt64.load(from: bytes, at: offset))
    }

    @inlinable package func store(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bitPattern.store(to: bytes, at: offset)
    }
}

extension Digest: LittleEndianStorable {
    @inlinable @inline(__always) package static func load(from bytes: UnsafeRawBufferPointer, at offset: Int) -> Digest {
        let word = { UInt64.load(from: bytes, at: offset + 8 * $0) }
        return Digest(words: (word(0), word(1), word(2), word(3)))
    }

    @inlinable package func store(to bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        words.0.store(to: bytes, at: offset)
        words.1.store(to: bytes, at: offset + 8)
        words.2.store(to: bytes, at: offset + 16)
        words.3.store(to: bytes, at: offset + 24)
    }
}

extension UnsafeRawBufferPointer {
    @inlinable @inline(__always) package func loadLittleEndian<T: LittleEndianStorable>(at offset: Int, as type: T.Type) -> T {
        T.load(from: self, at: offset)
    }
}

extension UnsafeMutableRawBufferPointer {
    @inlinable package func storeLittleEndian<T: LittleEndianStorable>(_ value: T, at offset: Int) {
        value.store(to: self, at: offset)
    }

    package func storeZero(at offset: Int, count: Int) {
        for index in offset..<offset + count { self[index] = 0 }
    }
}
