import KVCodec
import Testing

@Suite struct ExactTests {
    /// Random bits: NaNs with payloads, infinities, subnormals and negative zeros among them.
    private func randomBits(_ page: inout OwnedPage, seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let specials: [UInt32] = [0x8000_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC1_2345, 0xFFA0_0001, 1, 0x8000_0001, 0x7F7F_FFFF]
        for layer in page.layers.indices {
            guard var own = page.layers[layer] else { continue }
            for index in 0..<own.key.count {
                let bits = UInt32(truncatingIfNeeded: generator.next())
                own.key.setBits(index, page.elementType == .float32 ? bits : bits >> 16)
            }
            for index in 0..<own.value.count {
                let bits = specials[Int(generator.next() % 8)]
                own.value.setBits(index, page.elementType == .float32 ? bits : bits >> 16)
            }
            page.layers[layer] = own
        }
    }

    @Test(arguments: ElementType.allCases, OwnedTensor.Arrangement.allCases)
    func everyBitComesBack(elementType: ElementType, arrangement: OwnedTensor.Arrangement) throws {
        for (tokens, dim) in [(1, 1), (3, 5), (33, 16), (70, 24)] {
            var page = OwnedPage.random(
                heads: 3, tokens: tokens, keyDim: dim, valueDim: dim + 1, layers: 2, elementType: elementType,
                arrangement: arrangement, seed: UInt64(tokens))
            randomBits(&page, seed: UInt64(dim))
            let encoded = try page.encode(.exact)
            #expect(encoded.meanError == LayerError(key: 0, value: 0))
            for (index, layer) in page.layers.enumerated() {
                let decoded = try encoded.decode(layer: index, as: elementType, arrangement: arrangement)
                #expect(decoded.key.allBits == layer?.key.allBits)
                #expect(decoded.value.allBits == layer?.value.allBits)
            }
        }
    }

    @Test func nothingBesideTheTensorIsWritten() throws {
        let page = OwnedPage.random(tokens: 9, arrangement: .padded, seed: 1)
        let decoded = try page.encode(.exact).decode(layer: 0, as: .bfloat16, arrangement: .padded)
        #expect(decoded.key.bytes == page.layers[0]?.key.bytes)
    }

    @Test(arguments: ElementType.allCases, ElementType.allCases)
    func otherTypesAreRoundedToNearestEven(stored: ElementType, wanted: ElementType) throws {
        var page = OwnedPage.random(heads: 1, tokens: 40, keyDim: 64, valueDim: 64, elementType: stored, seed: 5)
        var generator = SplitMix64(seed: 9)
        guard var layer = page.layers[0] else { return }
        for index in 0..<layer.key.count {
            // All magnitudes of a half, its overflow and underflow among them.
            let exponent = Int.random(in: -30...18, using: &generator)
            let value = Float(
                sign: index % 2 == 0 ? .plus : .minus, exponent: exponent, significand: Float.random(in: 1..<2, using: &generator)
            )
            layer.key.setBits(index, stored.bits(of: value))
        }
        page.layers[0] = layer
        let decoded = try page.encode(.exact).decode(layer: 0, as: wanted)
        let expected = layer.key.allBits.map { stored == wanted ? $0 : wanted.bits(of: stored.float(of: $0)) }
        #expect(decoded.key.allBits == expected)
    }

    /// Keys of 64 channels are looked at as they are turned, of 16 otherwise. Beside those of 64 there are no strange values to notice.
    @Test(arguments: [16, 64]) func nonFiniteTokensStayExactUnderLossyProfiles(dim: Int) throws {
        for elementType in ElementType.allCases {
            var page = OwnedPage.random(
                tokens: 64, keyDim: dim, valueDim: 16, layers: 2, elementType: elementType,
                rotary: RotaryParameters(theta: 1e4, dim: dim), seed: 3)
            page.identity.firstToken = 256
            guard var layer = page.layers[1] else { return }
            let strange: [(Int, Float)] = [(10, .nan), (20, .infinity), (30, -.infinity)]
            for (token, value) in strange { layer.key.setBits(token * dim + dim - 3, elementType.bits(of: value)) }
            let hasStrangeValue = elementType != .float16 && dim == 16
            if hasStrangeValue { layer.value.setBits(40 * 16, elementType.bits(of: 0x1p90)) }
            page.layers[1] = layer
            let encoded = try page.encode(.named("vidkv-1.5-1.58"))
            let classes = try encoded.withImage { $0.tokenClasses }
            let exact = [10, 20, 30] + (hasStrangeValue ? [40] : [])
            #expect(classes.indices.filter { classes[$0] == .exact } == exact)
            for index in 0..<2 {
                let decoded = try encoded.decode(layer: index, as: elementType)
                for token in exact {
                    for channel in 0..<dim {
                        #expect(decoded.key.bits(token * dim + channel) == page.layers[index]?.key.bits(token * dim + channel))
                    }
                    for channel in 0..<16 {
                        #expect(decoded.value.bits(token * 16 + channel) == page.layers[index]?.value.bits(token * 16 + channel))
                    }
                }
                #expect(try decoded.value.floats().allSatisfy { $0.isFinite })
            }
            let error = try #require(encoded.errors[1])
            #expect(error.key > 0 && error.key < 0.2 && error.value < 0.5)
        }
    }

    @Test func sinksAreThoseOfTheSequence() throws {
        var page = OwnedPage.random(tokens: 40, seed: 4)
        page.exact = [17]
        let profile = try Profile.named("int4")
        for (first, expected) in [(0, [0, 1, 2, 3, 17]), (2, [0, 1, 17]), (4, [17])] {
            page.identity.firstToken = first
            let classes = try page.encode(profile).withImage { $0.tokenClasses }
            #expect(classes.indices.filter { classes[$0] == .exact } == expected)
        }
    }
}
