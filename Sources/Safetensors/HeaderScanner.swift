/// A reader of the header's JSON, strict and without recursion: objects, strings, and arrays of unsigned integers are all that
/// the format has.
///
/// A general JSON decoder hides what must be seen here: it keeps one of two equal keys, forgets the order of the entries, and
/// takes `1e3` or `2.0` for an integer.
struct HeaderScanner {
    /// What is wrong, and at which byte of the header.
    struct Problem: Error {
        let offset: Int
        let message: String
    }

    private let bytes: UnsafeRawBufferPointer
    private(set) var offset = 0

    /// `bytes` must stay valid as long as the scanner is used.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    func problem(_ message: String) -> Problem {
        Problem(offset: offset, message: message)
    }

    // MARK: - Tokens

    /// The next byte that is no white space, without taking it.
    private mutating func peek() -> UInt8? {
        while offset < bytes.count {
            switch bytes[offset] {
            case UInt8(ascii: " "), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "\t"): offset += 1
            default: return bytes[offset]
            }
        }
        return nil
    }

    mutating func expect(_ character: Unicode.Scalar) throws(Problem) {
        guard peek() == UInt8(ascii: character) else { throw problem("expected '\(character)'") }
        offset += 1
    }

    /// Takes `character` if it comes next.
    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard peek() == UInt8(ascii: character) else { return false }
        offset += 1
        return true
    }

    /// Only white space may follow the last value.
    mutating func expectEnd() throws(Problem) {
        guard peek() == nil else { throw problem("expected nothing after the last '}'") }
    }

    // MARK: - Values

    /// Calls `entry` once for each key of an object, in order; it must take the value.
    mutating func object(
        _ entry: (inout HeaderScanner, _ key: String) throws(SafetensorsError) -> Void,
        orFail: (Problem) -> SafetensorsError
    ) throws(SafetensorsError) {
        do throws(Problem) { try expect("{") } catch { throw orFail(error) }
        if take("}") { return }
        while true {
            let key: String
            do throws(Problem) {
                key = try string()
                try expect(":")
            } catch { throw orFail(error) }
            try entry(&self, key)
            if take("}") { return }
            do throws(Problem) { try expect(",") } catch { throw orFail(error) }
        }
    }

    /// An array of unsigned integers.
    mutating func integers() throws(Problem) -> [UInt64] {
        try expect("[")
        if take("]") { return [] }
        var result: [UInt64] = []
        while true {
            result.append(try integer())
            if take("]") { return result }
            try expect(",")
        }
    }

    private mutating func integer() throws(Problem) -> UInt64 {
        guard let first = peek(), isDigit(first) else { throw problem("expected an unsigned integer") }
        let start = offset
        var value: UInt64 = 0
        while offset < bytes.count, isDigit(bytes[offset]) {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(bytes[offset] - UInt8(ascii: "0")))
            guard !overflow, !carry else { throw problem("an integer does not fit 64 bits") }
            value = sum
            offset += 1
        }
        guard first != UInt8(ascii: "0") || offset == start + 1 else { throw problem("an integer begins with 0") }
        return value
    }

    private func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    /// A string, its escapes undone.
    mutating func string() throws(Problem) -> String {
        try expect("\"")
        var units: [UInt8] = []
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: units, as: UTF8.self) else { throw problem("a string is not UTF-8") }
                return text
            case UInt8(ascii: "\\"):
                units.append(contentsOf: try escape().utf8)
            case 0..<0x20:
                throw problem("a control character stands in a string")
            default:
                units.append(byte)
            }
        }
        throw problem("a string has no end")
    }

    private mutating func escape() throws(Problem) -> String {
        guard offset < bytes.count else { throw problem("a string has no end") }
        let byte = bytes[offset]
        offset += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return String(try escapedScalar())
        default: throw problem("a string has an unknown escape")
        }
    }

    /// What follows `\u`: four hexadecimal digits, or a surrogate pair of them.
    private mutating func escapedScalar() throws(Problem) -> Unicode.Scalar {
        let first = try hexadecimalUnit()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard UTF16.isLeadSurrogate(UTF16.CodeUnit(first)), offset + 1 < bytes.count,
            bytes[offset] == UInt8(ascii: "\\"), bytes[offset + 1] == UInt8(ascii: "u")
        else { throw problem("a string has half a surrogate pair") }
        offset += 2
        let second = try hexadecimalUnit()
        guard UTF16.isTrailSurrogate(UTF16.CodeUnit(second)),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { throw problem("a string has half a surrogate pair") }
        return scalar
    }

    private mutating func hexadecimalUnit() throws(Problem) -> UInt32 {
        guard offset + 4 <= bytes.count else { throw problem("a string has no end") }
        var value: UInt32 = 0
        for byte in bytes[offset..<offset + 4] {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw problem("expected four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
        }
        offset += 4
        return value
    }
}
