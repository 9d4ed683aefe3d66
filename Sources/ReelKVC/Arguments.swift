import CReelKV
import KVCodec
import ReelKV

// What callers pass is checked before it is used, whatever it is: the messages call it by its name in the header.

/// A pointer that must not be NULL.
func required<Pointer>(_ pointer: Pointer?, _ name: String) throws -> Pointer {
    guard let pointer else { throw Failure.invalid("'\(name)' is NULL") }
    return pointer
}

/// Text that must not be NULL.
func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws -> String {
    guard let text = String(validatingCString: try required(pointer, name)) else {
        throw Failure.invalid("'\(name)' is not UTF-8")
    }
    return text
}

func optionalText(_ pointer: UnsafePointer<CChar>?, _ name: String) throws -> String? {
    try pointer.map { try text($0, name) }
}

/// The tenant that is meant.
func tenant(_ pointer: UnsafePointer<CChar>?) throws -> String { try optionalText(pointer, "tenant") ?? Store.defaultTenant }

/// `video/NAME` or `session/NAME`.
func sequenceName(_ pointer: UnsafePointer<CChar>?, tenant pointerToTenant: UnsafePointer<CChar>?) throws -> SequenceName {
    let text = try text(pointer, "sequence")
    guard let name = SequenceName(text, tenant: try tenant(pointerToTenant)) else {
        throw Failure.invalid("'sequence' must be video/NAME or session/NAME, it is '\(text)'")
    }
    return name
}

/// A number that the library holds in an `Int`.
func number(_ value: some BinaryInteger, _ name: String) throws -> Int {
    guard let number = Int(exactly: value) else { throw Failure.invalid("'\(name)' is \(value), which is too large") }
    return number
}

/// `count` elements from `pointer` on, which may only be NULL where there are none.
func elements<Element>(
    _ pointer: UnsafePointer<Element>?, _ count: Int, _ name: String, atMost countMax: Int
) throws -> UnsafeBufferPointer<Element> {
    guard (0...countMax).contains(count) else {
        throw Failure.invalid("'\(name)' has \(UInt(bitPattern: count)) entries, more than the \(countMax) that are possible")
    }
    return UnsafeBufferPointer(start: count == 0 ? nil : try required(pointer, name), count: count)
}

/// - Throws: for a flag that this version does not know.
func check(flags: UInt32, known: UInt32) throws {
    guard flags & ~known == 0 else {
        throw Failure.invalid("'flags' has bits that this version of the library does not know: \(flags & ~known)")
    }
}

/// The element type of a `REELKV_FLOAT16`, `REELKV_BFLOAT16` or `REELKV_FLOAT32`.
func elementType(_ dtype: UInt32, _ name: String) throws -> ElementType {
    guard let type = UInt8(exactly: dtype).flatMap(ElementType.init(rawValue:)) else {
        throw Failure.invalid("'\(name)' must be REELKV_FLOAT16, REELKV_BFLOAT16 or REELKV_FLOAT32, it is \(dtype)")
    }
    return type
}
