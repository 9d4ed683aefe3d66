import KVCodec
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Golden images (schema/vectors): what a version of the codec wrote is read by every later version of this code.
///
/// They are written once per version: `REELKV_WRITE_VECTORS=1 swift test --filter VectorTests` writes those of the last version
/// that are missing.
@Suite struct VectorTests {
    private static let versions = ["v1", "v2"]
    private static let folder = repositoryRoot + "/schema/vectors/"

    /// A vector is a page of seeded random tensors under one profile; together they have every scheme, flag and element type.
    private static var pages: [(name: String, profile: String, page: () -> OwnedPage)] {
        [
            ("exact-f32", "exact", { specials(.random(tokens: 9, keyDim: 8, valueDim: 5, elementType: .float32, seed: 1)) }),
            ("exact-f16", "exact", { specials(.random(tokens: 33, keyDim: 6, valueDim: 8, elementType: .float16, seed: 2)) }),
            ("int8", "int8", { .random(tokens: 37, keyDim: 12, valueDim: 9, elementType: .bfloat16, seed: 3) }),
            (
                "int4-rotated", "int4",
                {
                    let rotary = RotaryParameters(theta: 1e4, dim: 8, pairing: .interleaved, sections: [1, 1, 2])
                    var page = OwnedPage.random(
                        tokens: 40, keyDim: 12, valueDim: 8, elementType: .float16, rotary: rotary, seed: 4)
                    page.positions = (0..<3).map { stream in (0..<40).map { Int32(9 + $0 / (stream + 1)) } }
                    return page
                }
            ),
            ("kivi-2", "kivi-2", { .random(tokens: 41, keyDim: 16, valueDim: 40, seed: 5) }),
            (
                "vidkv-2-2", "vidkv-2-2",
                { constants(.random(tokens: 70, keyDim: 16, valueDim: 10, elementType: .float32, seed: 6)) }
            ),
            (
                "vidkv-1.5-1.66", "vidkv-1.5-1.66",
                {
                    let rotary = RotaryParameters(theta: 1e6, dim: 24)
                    var page = OwnedPage.random(tokens: 50, keyDim: 24, valueDim: 16, layers: 2, rotary: rotary, seed: 7)
                    page.identity.firstToken = 2
                    page.salient = [5, 6, 7, 8, 20, 30, 31, 49]
                    page.exact = [11]
                    page.layers.insert(nil, at: 1)
                    return page
                }
            ),
            (
                "vidkv-1-1-window", "vidkv-1-1",
                {
                    var page = OwnedPage.random(tokens: 30, keyDim: 15, valueDim: 7, seed: 8)
                    page.tokenCount = 35
                    page.identity.firstToken = 700
                    page.layers[0]?.firstToken = 5
                    page.layers[0]?.geometry.slidingWindow = 30
                    return page
                }
            ),
        ]
    }

    private static func specials(_ page: OwnedPage) -> OwnedPage {
        var page = page
        let values: [Float] = [.nan, .infinity, -.infinity, -0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude]
        for (index, value) in values.enumerated() { page.layers[0]?.key.setBits(index * 3, page.elementType.bits(of: value)) }
        return page
    }

    /// Two channels that hold one value throughout.
    private static func constants(_ page: OwnedPage) -> OwnedPage {
        var page = page
        for token in 0..<page.tokenCount {
            page.layers[0]?.key.setBits(token * 16 + 3, Float(-605).bitPattern)
            page.layers[0]?.key.setBits(token * 16 + 4, Float(0).bitPattern)
        }
        return page
    }

    @Test(arguments: versions)
    func goldenImagesDecodeToTheSameValues(version: String) throws {
        if getenv("REELKV_WRITE_VECTORS") != nil, version == Self.versions.last {
            try Self.pages.forEach { try write("\(version)/\($0.name)", $0.profile, $0.page()) }
        }
        for (plainName, profile, page) in Self.pages {
            let name = "\(version)/\(plainName)"
            let encoded = EncodedPage(bytes: try read(name + ".page"), errors: [])
            try encoded.withImage { image in
                try image.verifyAll()
                #expect(try image.profile == .named(profile))
            }
            let expected = try read(name + ".f32")
            let decoded = try floats(encoded, layers: page().layers)
            #expect(decoded.count * 4 == expected.count)
            let inexact = try isRotatedOrTransformed(encoded)
            expected.withUnsafeBytes { expected in
                for (index, value) in decoded.enumerated() {
                    let golden = Float(
                        bitPattern: UInt32(littleEndian: expected.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)))
                    if inexact {
                        #expect(abs(value - golden) <= 0x1p-17, "\(name) \(index)")
                    } else {
                        #expect(value.bitPattern == golden.bitPattern, "\(name) \(index)")
                    }
                }
            }
        }
    }

    private func isRotatedOrTransformed(_ encoded: EncodedPage) throws -> Bool {
        try encoded.withImage { image in
            try image.layers.indices.filter { image.layers[$0] != nil }.contains { index in
                try image.describe(layer: index).parts.contains { !$0.flags.isDisjoint(with: [.unrotated, .fourier]) }
            }
        }
    }

    private func floats(_ encoded: EncodedPage, layers: [OwnedPage.Layer?]) throws -> [Float] {
        try layers.indices.filter { layers[$0] != nil }.flatMap { index in
            let decoded = try encoded.decode(layer: index, as: .float32)
            return try decoded.key.floats() + decoded.value.floats()
        }
    }

    // MARK: - Files

    private func write(_ name: String, _ profile: String, _ page: OwnedPage) throws {
        guard access(Self.folder + name + ".page", F_OK) != 0 else { return }
        let encoded = try page.encode(.named(profile))
        try write(encoded.bytes, to: name + ".page")
        let values = try floats(encoded, layers: page.layers)
        try write(values.flatMap { value in withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) } }, to: name + ".f32")
    }

    private func write(_ bytes: [UInt8], to name: String) throws {
        let file = try #require(fopen(Self.folder + name, "wb"))
        defer { fclose(file) }
        #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    private func read(_ name: String) throws -> [UInt8] {
        let file = try #require(fopen(Self.folder + name, "rb"), "\(Self.folder + name) is missing")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
        return bytes
    }
}
