import CReelKV
import Reports

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Where a function puts a pointer that it gives: NULL until it has.
func output<Pointer>(_ place: UnsafeMutablePointer<Pointer?>?, _ name: String) throws -> UnsafeMutablePointer<Pointer?> {
    let place = try required(place, name)
    place.pointee = nil
    return place
}

/// Memory that the caller lets go of with `reelkv_free`, all zero.
func allocate(_ byteCount: Int) throws -> UnsafeMutableRawPointer {
    guard let memory = calloc(1, max(1, byteCount)) else {
        throw Failure(REELKV_IO_ERROR, "\(byteCount) bytes of memory could not be had")
    }
    return memory
}

/// A copy of text that the caller lets go of with `reelkv_free`.
func copy(_ text: String) throws -> UnsafeMutablePointer<CChar> {
    let count = text.utf8.count
    let copy = try allocate(count + 1)
    copy.copyMemory(from: Array(text.utf8), byteCount: count)
    return copy.assumingMemoryBound(to: CChar.self)
}

/// A report as one line of JSON, which the caller lets go of.
func json(_ report: some Encodable) throws -> UnsafeMutablePointer<CChar> {
    try copy(String(try JSONOutput.text(report, pretty: false).dropLast()))
}
