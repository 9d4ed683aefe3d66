import CXXHash

/// XXH3-64, the checksum of every piece of a page image.
package enum Checksum {
    package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        XXH3_64bits(bytes.baseAddress, bytes.count)
    }

    /// The checksum of two ranges of `bytes`, one after the other.
    package static func of(_ bytes: UnsafeRawBufferPointer, _ first: Range<Int>, then second: Range<Int>) throws(CodecError)
        -> UInt64
    {
        guard let state = XXH3_createState() else { throw CodecError(.invalidArgument, "out of memory for a checksum") }
        defer { XXH3_freeState(state) }
        XXH3_64bits_reset(state)
        for range in [first, second] {
            XXH3_64bits_update(state, bytes.baseAddress.map { $0 + range.lowerBound }, range.count)
        }
        return XXH3_64bits_digest(state)
    }
}
