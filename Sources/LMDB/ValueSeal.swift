public import CXXHash

/// The checksum behind every value of a sealed database: XXH3-64 of the value, seeded with that of its key, which is seeded with that of
/// the database's name. So a flipped bit is found in value and key, and a value in another one's place.
@usableFromInline
struct ValueSeal: Sendable {
    @usableFromInline static let byteCount = 8

    @usableFromInline let seed: UInt64

    init(database: String?) {
        var name = database ?? ""
        seed = name.withUTF8 { XXH3_64bits($0.baseAddress, $0.count) }
    }

    /// - Parameter value: with its checksum.
    /// - Returns: the value without; nil where the checksum does not match.
    @inlinable
    func open(_ value: UnsafeRawBufferPointer, of key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard value.count >= Self.byteCount else { return nil }
        let contents = UnsafeRawBufferPointer(rebasing: value.dropLast(Self.byteCount))
        let found = UInt64(littleEndian: value.loadUnaligned(fromByteOffset: contents.count, as: UInt64.self))
        return found == checksum(contents, key) ? contents : nil
    }

    /// Writes the checksum behind a value.
    ///
    /// - Parameter value: with room for it.
    @inlinable
    func close(_ value: UnsafeMutableRawBufferPointer, of key: UnsafeRawBufferPointer) {
        let contents = UnsafeRawBufferPointer(rebasing: value.dropLast(Self.byteCount))
        value.storeBytes(of: checksum(contents, key).littleEndian, toByteOffset: contents.count, as: UInt64.self)
    }

    @inlinable
    func checksum(_ contents: UnsafeRawBufferPointer, _ key: UnsafeRawBufferPointer) -> UInt64 {
        XXH3_64bits_withSeed(
            contents.baseAddress, contents.count, XXH3_64bits_withSeed(key.baseAddress, key.count, seed))
    }
}
