import CZlib
import Rendering
import Testing
import Locking

/// Texts in the order of their arrival, from any thread.
final class Log: Sendable {
    private let state = Mutex<[String]>([])

    var texts: [String] { state.withLock { $0 } }

    func append(_ text: String) {
        state.withLock { $0.append(text) }
    }
}

/// SplitMix64: the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}

/// A decoder for the PNG files that the encoder may write, strict about all that the format demands of them.
struct DecodedPNG {
    var width = 0
    var height = 0
    var pixels: [RGB] = []

    init(_ file: [UInt8]) throws {
        try #require(file.prefix(8) == [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
        var chunks: [(type: String, content: [UInt8])] = []
        var offset = 8
        while offset < file.count {
            try #require(offset + 12 <= file.count)
            let count = Int(Self.integer(file, offset))
            try #require(offset + 12 + count <= file.count)
            let body = Array(file[offset + 4..<offset + 8 + count])
            try #require(Self.integer(file, offset + 8 + count) == UInt32(crc32(0, body, uInt(body.count))))
            chunks.append((String(decoding: body[..<4], as: UTF8.self), Array(body[4...])))
            offset += 12 + count
        }
        try #require(chunks.map(\.type) == ["IHDR", "IDAT", "IEND"])
        let header = chunks[0].content
        try #require(header.count == 13 && Array(header[8...]) == [8, 2, 0, 0, 0])
        width = Int(Self.integer(header, 0))
        height = Int(Self.integer(header, 4))
        try unfilter(try inflated(chunks[1].content))
    }

    private static func integer(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        bytes[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }

    private func inflated(_ bytes: [UInt8]) throws -> [UInt8] {
        var count = uLong((width * 3 + 1) * height)
        var result = [UInt8](repeating: 0, count: Int(count))
        try #require(uncompress(&result, &count, bytes, uLong(bytes.count)) == Z_OK)
        try #require(Int(count) == result.count)
        return result
    }

    private mutating func unfilter(_ bytes: [UInt8]) throws {
        var above = [UInt8](repeating: 0, count: width * 3)
        for row in 0..<height {
            let start = row * (width * 3 + 1)
            let filter = bytes[start]
            try #require(filter == 0 || filter == 2)
            let line = bytes[(start + 1)..<(start + 1 + width * 3)]
            above = filter == 0 ? Array(line) : zip(line, above).map { $0 &+ $1 }
            for column in 0..<width {
                pixels.append(RGB(above[column * 3], above[column * 3 + 1], above[column * 3 + 2]))
            }
        }
    }

    subscript(_ column: Int, _ row: Int) -> RGB { pixels[row * width + column] }
}
