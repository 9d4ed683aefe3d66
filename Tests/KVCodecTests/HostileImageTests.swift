import FuzzTargets
import KVCodec
import Testing

/// A damaged image is an error, or decodes to what it always was (a flip in padding). It never crashes and never gives other
/// values.
@Suite struct HostileImageTests {
    private static let profiles = ["exact", "kivi-2", "vidkv-1.5-1.66"]

    private func image(_ name: String) throws -> (EncodedPage, [[UInt32]]) {
        var page = OwnedPage.random(tokens: 20, layers: 2, rotary: RotaryParameters(theta: 10, dim: 16), seed: 2)
        page.positions = [Array(0..<20)]
        let encoded = try page.encode(.named(name))
        return (encoded, try values(encoded.bytes))
    }

    private func values(_ bytes: [UInt8]) throws -> [[UInt32]] {
        let page = EncodedPage(bytes: bytes, errors: [])
        return try (0..<2).flatMap { layer in
            let decoded = try page.decode(layer: layer, as: .bfloat16)
            return [decoded.key.allBits, decoded.value.allBits]
        }
    }

    @Test(arguments: profiles)
    func everyTruncationIsAnError(name: String) throws {
        let (encoded, _) = try image(name)
        for count in 0..<encoded.bytes.count {
            #expect(throws: CodecError.self) { try values(Array(encoded.bytes.prefix(count))) }
        }
        #expect(throws: CodecError.self) { try values(encoded.bytes + [0]) }
    }

    @Test(arguments: profiles)
    func everyFlippedBitIsFoundOrHarmless(name: String) throws {
        let (encoded, expected) = try image(name)
        var generator = SplitMix64(seed: 5)
        var found = 0
        for index in encoded.bytes.indices {
            var bytes = encoded.bytes
            bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            do {
                #expect(try values(bytes) == expected, "byte \(index)")
            } catch is CodecError {
                found += 1
            }
            #expect(throws: CodecError.self) {
                try EncodedPage(bytes: bytes, errors: []).withImage { try $0.verifyAll() }
            }
        }
        #expect(found > encoded.bytes.count * 9 / 10)
    }

    /// The same with checksums made right again: what a hostile writer could send. Any error will do, or any values; no crash.
    @Test(arguments: profiles)
    func flippedBitsWithRightChecksumsDoNotCrash(name: String) throws {
        let (encoded, _) = try image(name)
        var generator = SplitMix64(seed: 6)
        var decoded = 0
        for _ in 0..<6000 {
            var bytes = encoded.bytes
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let index = Int.random(in: 8..<bytes.count, using: &generator)
                bytes[index] = Bool.random(using: &generator) ? UInt8.random(in: 0...255, using: &generator) : bytes[index] ^ 1
            }
            reseal(&bytes)
            do {
                let page = EncodedPage(bytes: bytes, errors: [])
                try page.withImage { image in
                    for layer in image.layers.indices where image.layers[layer] != nil { _ = try image.describe(layer: layer) }
                    guard image.layers.compactMap({ $0?.geometry.elementsPerToken }).allSatisfy({ $0 < 10000 }) else { return }
                    for (index, layer) in image.layers.enumerated() where layer != nil {
                        _ = try page.decode(layer: index, as: .float32)
                        decoded += 1
                    }
                }
            } catch is CodecError {
                continue
            }
        }
        #expect(decoded > 100)
    }

    /// Lengths at their extremes, in every 4-byte word of header, prologue and section tables.
    @Test(arguments: profiles)
    func extremeLengthsAreErrors(name: String) throws {
        let (encoded, _) = try image(name)
        let start = try encoded.withImage { $0.layers[0]?.byteRange.lowerBound ?? 0 }
        for offset in stride(from: 8, to: start + 200, by: 4) {
            for pattern: UInt32 in [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0x0000_FFFF, 0xFFFF_0000] {
                var bytes = encoded.bytes
                for byte in 0..<4 { bytes[offset + byte] = UInt8(truncatingIfNeeded: pattern >> (8 * byte)) }
                reseal(&bytes)
                do {
                    try EncodedPage(bytes: bytes, errors: []).withImage { image in
                        for layer in image.layers.indices where image.layers[layer] != nil {
                            _ = try image.describe(layer: layer)
                        }
                    }
                } catch is CodecError {
                    continue
                }
            }
        }
    }

    @Test func foreignBytesAreNoPage() {
        for bytes in [
            [], [UInt8](repeating: 0, count: 64),
            Array("not a page image at all, but long enough to hold a header; see".utf8) + [0, 0, 0],
        ] {
            let error = #expect(throws: CodecError.self) { try EncodedPage(bytes: bytes, errors: []).withImage { $0.tokenCount } }
            #expect(error?.code == .notAPage)
        }
    }

    @Test func newerVersionsAreRefused() throws {
        let (encoded, _) = try image("exact")
        for offset in [8, 10, 12] {
            var bytes = encoded.bytes
            bytes[offset] += 1
            reseal(&bytes)
            let error = #expect(throws: CodecError.self) { try EncodedPage(bytes: bytes, errors: []).withImage { $0.tokenCount } }
            #expect(error?.code == .newerFormat)
        }
    }

    private func reseal(_ bytes: inout [UInt8]) { bytes.withUnsafeMutableBytes { resealPageImage($0) } }
}
