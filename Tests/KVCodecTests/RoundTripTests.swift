import KVCodec
import KVMetrics
import Testing

@Suite struct RoundTripTests {
    /// Shapes that are unlike each other: odd dims, groups cut short, one token, partial and interleaved rotation.
    private static let shapes: [(heads: Int, tokens: Int, keyDim: Int, valueDim: Int, rotary: RotaryParameters?)] = [
        (1, 1, 8, 8, nil), (2, 33, 16, 24, RotaryParameters(theta: 10000, dim: 16)),
        (3, 70, 20, 12, RotaryParameters(theta: 10000, dim: 10, pairing: .interleaved)),
        (1, 256, 80, 64, RotaryParameters(theta: 1e6, dim: 80)),
        (2, 40, 30, 31, RotaryParameters(theta: 500, dim: 12, pairing: .halves, sections: [2, 3, 1])),
        (3, 64, 1, 2, nil), (1, 64, 2, 1, nil),
    ]

    @Test(arguments: Profile.all)
    func errorIsAsRecordedAndSmall(profile: Profile) throws {
        for (index, shape) in Self.shapes.enumerated() {
            let elementType = ElementType.allCases[index % 3]
            let arrangement = OwnedTensor.Arrangement.allCases[index % 4]
            var page = OwnedPage.random(
                heads: shape.heads, tokens: shape.tokens, keyDim: shape.keyDim, valueDim: shape.valueDim, layers: 2,
                elementType: elementType, rotary: shape.rotary, arrangement: arrangement, seed: UInt64(index))
            page.identity.firstToken = 1000
            if shape.rotary?.sections != nil {
                page.positions = (0..<3).map { stream in (0..<shape.tokens).map { Int32($0 * (stream + 1) / 2 - 5) } }
            }
            let encoded = try page.encode(profile)
            for (layer, recorded) in zip(page.layers.indices, encoded.errors) {
                let original = try #require(page.layers[layer])
                let decoded = try encoded.decode(layer: layer, as: .float32, arrangement: arrangement)
                let recorded = try #require(recorded)
                let key = normalizedSquaredError(of: try decoded.key.floats(), against: try original.key.floats())
                let value = normalizedSquaredError(of: try decoded.value.floats(), against: try original.value.floats())
                #expect(abs(key - Double(recorded.key)) <= 1e-6 * key)
                #expect(abs(value - Double(recorded.value)) <= 1e-6 * value)
                #expect(key < limit(profile.keyBits) && value < limit(profile.valueBits), "\(profile) \(shape) \(key) \(value)")
                if min(shape.tokens, shape.valueDim) > 2, !profile.isExact { #expect(key > 0 && value > 0) }
            }
        }
    }

    /// A page of one token has groups of one value, which every scheme but the ternary one keeps to a fraction of a percent.
    private func limit(_ bits: Double?) -> Double {
        switch bits {
        case nil: 1e-12
        case .some(let bits) where bits >= 8: 2e-4
        case .some(let bits) where bits >= 4: 0.02
        case .some(let bits) where bits >= 2: 0.2
        default: 0.6
        }
    }

    /// An error of 0 says that every bit came back, which is more than that no value changed: -0 is not 0.
    @Test(arguments: Profile.all)
    func errorZeroMeansIdentical(profile: Profile) throws {
        var page = OwnedPage.random(heads: 2, tokens: 96, keyDim: 16, valueDim: 16, elementType: .float32, seed: 4)
        page.identity.firstToken = 512
        let contents: [(Int) -> Float] = [{ _ in 0 }, { _ in -0.0 }, { $0 % 3 == 0 ? 0 : -0.0 }, { $0 % 16 == 5 ? 1.5 : 0 }]
        for content in contents {
            let tensor = OwnedTensor(
                values: (0..<2 * 96 * 16).map(content), heads: 2, tokens: 96, dim: 16, elementType: .float32)
            page.layers[0]?.key = tensor
            page.layers[0]?.value = tensor
            let encoded = try page.encode(profile)
            let decoded = try encoded.decode(layer: 0, as: .float32)
            let recorded = try #require(encoded.errors[0])
            #expect((recorded.key == 0) == (decoded.key.allBits == tensor.allBits))
            #expect((recorded.value == 0) == (decoded.value.allBits == tensor.allBits))
        }
    }

    @Test(arguments: Profile.all)
    func anyTokenRangeIsASliceOfTheWhole(profile: Profile) throws {
        var page = OwnedPage.random(
            heads: 2, tokens: 150, keyDim: 24, valueDim: 20, rotary: RotaryParameters(theta: 1e4, dim: 24), seed: 8)
        page.exact = [0, 77, 78, 149]
        page.salient = Array(stride(from: 1, to: 150, by: 4))
        let encoded = try page.encode(profile)
        let whole = try encoded.decode(layer: 0, as: .float32)
        let (key, value) = (try whole.key.floats(), try whole.value.floats())
        for range in [0..<1, 0..<150, 31..<33, 77..<79, 64..<96, 100..<150, 149..<150, 20..<20] {
            let part = try encoded.decode(layer: 0, tokens: range, as: .float32)
            for head in 0..<2 {
                let keySlice = key[(head * 150 + range.lowerBound) * 24..<(head * 150 + range.upperBound) * 24]
                let valueSlice = value[(head * 150 + range.lowerBound) * 20..<(head * 150 + range.upperBound) * 20]
                let keys = try part.key.floats()
                let values = try part.value.floats()
                #expect(Array(keys[head * range.count * 24..<(head + 1) * range.count * 24]) == Array(keySlice))
                #expect(Array(values[head * range.count * 20..<(head + 1) * range.count * 20]) == Array(valueSlice))
            }
        }
    }

    @Test(arguments: ElementType.allCases)
    func outputTypeOnlyRounds(elementType: ElementType) throws {
        let page = OwnedPage.random(tokens: 64, rotary: RotaryParameters(theta: 1e4, dim: 16), seed: 2)
        let encoded = try page.encode(.named("vidkv-1.5-1.58"))
        let floats = try encoded.decode(layer: 0, as: .float32).key.floats()
        // Token 4 on: the first four are exact, and come from their own bits.
        let decoded = try encoded.decode(layer: 0, as: elementType, arrangement: .channelsFirst)
        #expect(decoded.key.allBits == floats.map { elementType.bits(of: $0) })
    }

    @Test func layersMayLackTokensOrBeAbsent() throws {
        var page = OwnedPage.random(tokens: 64, layers: 3, seed: 6)
        page.layers[0] = nil
        let short = OwnedPage.random(tokens: 24, seed: 7)
        guard var layer = short.layers[0] else { return }
        layer.firstToken = 40
        layer.geometry.slidingWindow = 24
        page.layers[2] = layer
        let encoded = try page.encode(.named("int4"))
        try encoded.withImage { image in
            #expect(image.layers[0] == nil)
            #expect(image.layers[2]?.tokens == 40..<64)
            #expect(image.layers[2]?.geometry == layer.geometry)
            #expect(throws: CodecError.self) { try image.verify(layer: 0) }
            #expect(throws: CodecError.self) { try image.describe(layer: 3) }
            try image.verifyAll()
        }
        let decoded = try encoded.decode(layer: 2, tokens: 50..<60, as: .float32)
        let original = try layer.key.floats()
        let expected = Array(original[10 * 16..<20 * 16])
        #expect(normalizedSquaredError(of: Array(try decoded.key.floats()[0..<160]), against: expected) < 0.01)
        let error = #expect(throws: CodecError.self) { try encoded.decode(layer: 2, tokens: 39..<41, as: .float32) }
        #expect(error?.code == .absent)
    }

    @Test func oneLayerDecodesAlone() throws {
        let page = OwnedPage.random(tokens: 64, layers: 3, seed: 6)
        var encoded = try page.encode(.named("vidkv-2-2"))
        let expected = try encoded.decode(layer: 1, as: .float32).key.floats()
        let ranges = try encoded.withImage { image in image.layers.map { $0?.byteRange ?? 0..<0 } }
        var bytes = encoded.bytes
        for index in ranges[0].lowerBound..<ranges[0].upperBound { bytes[index] ^= 0xFF }
        for index in ranges[2].lowerBound..<ranges[2].upperBound { bytes[index] ^= 0xFF }
        encoded = EncodedPage(bytes: bytes, errors: encoded.errors)
        #expect(try encoded.decode(layer: 1, as: .float32).key.floats() == expected)
        #expect(throws: CodecError.self) { try encoded.decode(layer: 0, as: .float32) }
        #expect(throws: CodecError.self) { try encoded.withImage { try $0.verifyAll() } }
    }

    @Test func identityAndPositionsComeBack() throws {
        var page = OwnedPage.random(tokens: 12, rotary: RotaryParameters(theta: 100, dim: 16), seed: 1)
        page.identity.firstToken = 300
        page.positions = [[Int32.min, -1, 0, 1, 2, 3, 3, 3, 900, 901, .max, 5]]
        try page.encode(.exact).withImage { image in
            #expect(image.identity == page.identity)
            #expect(image.explicitPositions == page.positions)
            #expect(image.profile == .exact)
            #expect(image.elementType == .bfloat16)
            #expect(image.layers[0]?.geometry == page.layers[0]?.geometry)
        }
    }

    @Test func constantsComeBackAsTheyWere() throws {
        let constants: [Float] = [0, 3, -605, 0.0078125, 1e-20, 921, -1, 0.15625]
        let bfloats = constants.map { ElementType.bfloat16.float(of: ElementType.bfloat16.bits(of: $0)) }
        let values = (0..<64).flatMap { _ in bfloats }
        for name in ["vidkv-2-2", "int4", "int8", "vidkv-1-1"] {
            var page = OwnedPage.random(heads: 1, tokens: 64, keyDim: 8, valueDim: 8, seed: 1)
            page.layers[0]?.key = OwnedTensor(values: values, heads: 1, tokens: 64, dim: 8, elementType: .bfloat16)
            page.layers[0]?.value = OwnedTensor(values: values, heads: 1, tokens: 64, dim: 8, elementType: .bfloat16)
            page.identity.firstToken = 64
            let decoded = try page.encode(.named(name)).decode(layer: 0, as: .bfloat16)
            #expect(try decoded.value.floats() == values, "\(name)")
            if name != "vidkv-1-1" { #expect(try decoded.key.floats() == values, "\(name)") }
        }
    }

    @Test func extremeMagnitudesSurvive() throws {
        // Channels from 2^-40 to 2^59 side by side: every channel keeps an error in proportion to itself.
        var generator = SplitMix64(seed: 12)
        let values = (0..<64 * 12).map {
            Float.random(in: 1...2, using: &generator) * Float(sign: .plus, exponent: $0 % 12 * 9 - 40, significand: 1)
        }
        for name in ["int8", "int4", "vidkv-2-2"] {
            var page = OwnedPage.random(heads: 1, tokens: 64, keyDim: 12, valueDim: 12, elementType: .float32, seed: 1)
            page.identity.firstToken = 64
            page.layers[0]?.key = OwnedTensor(values: values, heads: 1, tokens: 64, dim: 12, elementType: .float32)
            let decoded = try page.encode(.named(name)).decode(layer: 0, as: .float32).key.floats()
            for channel in 0..<12 {
                let pick = { (all: [Float]) in stride(from: channel, to: all.count, by: 12).map { all[$0] } }
                #expect(normalizedSquaredError(of: pick(decoded), against: pick(values)) < 0.02, "\(name) \(channel)")
            }
        }
    }
}
