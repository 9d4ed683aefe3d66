import LMDB
import Testing

@Suite("Codecs")
struct CodecTests {
    @Test("Big-endian numbers sort as numbers do")
    func bigEndianOrder() throws {
        var random = SeededGenerator(seed: 1)
        for _ in 0..<1000 {
            let (a, b) = (UInt64.random(in: 0...UInt64.max, using: &random), UInt64.random(in: 0...1000, using: &random))
            let (x, y) = (BigEndianUInt64.withBytes(of: a) { Array($0) }, BigEndianUInt64.withBytes(of: b) { Array($0) })
            #expect((a < b) == x.lexicographicallyPrecedes(y))
            expectEqual(try x.withUnsafeBytes(BigEndianUInt64.decode), a)
            let (s, t) = (UInt32(truncatingIfNeeded: a), UInt32(truncatingIfNeeded: b))
            let (v, w) = (BigEndianUInt32.withBytes(of: s) { Array($0) }, BigEndianUInt32.withBytes(of: t) { Array($0) })
            #expect((s < t) == v.lexicographicallyPrecedes(w))
            expectEqual(try v.withUnsafeBytes(BigEndianUInt32.decode), s)
        }
    }

    @Test(
        "Text and bytes come back as they were", arguments: ["", "a", "käse", "動画\u{0}キャッシュ", String(repeating: "x", count: 300)])
    func textRoundTrip(text: String) throws {
        let bytes = UTF8String.withBytes(of: text) { Array($0) }
        #expect(bytes == Array(text.utf8))
        expectEqual(try bytes.withUnsafeBytes(UTF8String.decode), text)
        #expect(RawBytes.withBytes(of: bytes) { RawBytes.decode($0) } == bytes)
    }

    @Test("Bytes that encode nothing are an error", arguments: [0, 3, 7, 9])
    func wrongSizes(count: Int) {
        let bytes = [UInt8](repeating: 0xff, count: count)
        let isCorrupted = { (error: any Error) in (error as? LMDBError)?.code == .corrupted }
        #expect { try bytes.withUnsafeBytes(BigEndianUInt64.decode) } throws: { isCorrupted($0) }
        #expect { try bytes.withUnsafeBytes(BigEndianUInt32.decode) } throws: { isCorrupted($0) }
        if count > 0 {
            #expect { try bytes.withUnsafeBytes(UTF8String.decode) } throws: { isCorrupted($0) }
            #expect { try bytes.withUnsafeBytes(EmptyValue.decode) } throws: { isCorrupted($0) }
        }
    }
}
