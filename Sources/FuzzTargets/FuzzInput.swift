/// What a fuzzer made up, read as a stream of choices. Past its end everything is zero.
struct FuzzInput {
    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    var isEmpty: Bool { rest.isEmpty }

    mutating func next<Integer: FixedWidthInteger>(_ type: Integer.Type = Integer.self) -> Integer {
        var value: Integer = 0
        for byte in bytes(MemoryLayout<Integer>.size) { value = value &<< 8 | Integer(truncatingIfNeeded: byte) }
        return value
    }

    /// - Parameter range: at most 65,536 numbers.
    mutating func number(in range: ClosedRange<Int>) -> Int {
        let wide = range.count > 256
        let choice = wide ? Int(next(UInt16.self)) : Int(next(UInt8.self))
        return range.lowerBound + choice % range.count
    }

    mutating func flag() -> Bool { next(UInt8.self) & 1 == 1 }

    mutating func pick<Element>(_ choices: [Element]) -> Element { choices[number(in: 0...choices.count - 1)] }

    /// A size as callers get it right mostly, and wrong at the extremes now and then.
    mutating func size(upTo usual: Int) -> Int {
        switch next(UInt8.self) {
        case 0..<224: number(in: 0...usual)
        case 224..<240: Int(truncatingIfNeeded: next(UInt64.self))
        case let edge: [.max, .min, -1, .max / 2, 1 << 32, 1 << 31, .max - 1, 1 << 20][Int(edge) % 8]
        }
    }

    /// The next bytes: `count`, or what is left.
    mutating func bytes(_ count: Int) -> UnsafeRawBufferPointer {
        let taken = min(max(count, 0), rest.count)
        defer { rest = UnsafeRawBufferPointer(rebasing: rest[taken...]) }
        return UnsafeRawBufferPointer(rebasing: rest[..<taken])
    }

    /// Everything that is left.
    mutating func remainder() -> UnsafeRawBufferPointer { bytes(rest.count) }

    /// A short text; of any bytes, so not always UTF-8 before it is made a string.
    mutating func text(upTo count: Int = 40) -> String {
        String(decoding: bytes(number(in: 0...count)), as: UTF8.self)
    }
}
