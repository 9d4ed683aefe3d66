import KVCodec
import KVMetrics
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite struct EncoderTests {
    /// Runs the calls on as many threads as there are calls, last first.
    private func threads(_ count: Int, _ body: @Sendable (Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            let group = (0..<count).reversed().map { index in
                let box = Unmanaged.passRetained(Call { body(index) })
                var thread = pthread_t()
                pthread_create(
                    &thread, nil,
                    { raw in
                        guard let raw else { return nil }
                        Unmanaged<Call>.fromOpaque(raw).takeRetainedValue().run()
                        return nil
                    }, box.toOpaque())
                return thread
            }
            for thread in group { pthread_join(thread, nil) }
        }
    }

    private final class Call: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    @Test(arguments: Profile.all)
    func sameInputSameBytesOnAnyThreads(profile: Profile) throws {
        let page = OwnedPage.random(tokens: 96, layers: 5, rotary: RotaryParameters(theta: 1e4, dim: 16), seed: 9)
        let alone = try page.encode(profile)
        #expect(try page.encode(profile).bytes == alone.bytes)
        #expect(try page.encode(profile, executor: threads).bytes == alone.bytes)
    }

    @Test func arrangementDoesNotMatter() throws {
        let profile = try Profile.named("vidkv-1.5-1.58")
        let expected = try OwnedPage.random(tokens: 40, seed: 9).encode(profile).bytes
        for arrangement in OwnedTensor.Arrangement.allCases {
            #expect(try OwnedPage.random(tokens: 40, arrangement: arrangement, seed: 9).encode(profile).bytes == expected)
        }
    }

    @Test func salientTokensGetMoreBits() throws {
        var page = OwnedPage.random(tokens: 256, keyDim: 16, valueDim: 64, seed: 10)
        page.identity.firstToken = 256
        let profile = try Profile.named("vidkv-1.5-1.66")
        page.salient = Array(100..<150)
        let encoded = try page.encode(profile)
        let classes = try encoded.withImage { $0.tokenClasses }
        #expect(classes.indices.filter { classes[$0] == .salient } == page.salient)
        let decoded = try encoded.decode(layer: 0, as: .float32).value.floats()
        let original = try #require(try page.layers[0]?.value.floats())
        let error = { (tokens: Range<Int>) in
            let elements = tokens.lowerBound * 64..<tokens.upperBound * 64
            return normalizedSquaredError(of: Array(decoded[elements]), against: Array(original[elements]))
        }
        #expect(error(100..<150) < 0.6 * error(0..<100))

        page.salient = []
        for (protection, count) in [
            (EncoderOptions.Protection.listed, 0), (.valueNorm(fraction: 0.2), 51), (.random(fraction: 0.5, seed: 3), 128),
        ] {
            var options = EncoderOptions()
            options.protection = protection
            let classes = try page.encode(profile, options: options).withImage { $0.tokenClasses }
            #expect(classes.count { $0 == .salient } == count)
        }
        let others = try page.encode(.named("vidkv-1.5-1.58")).withImage { $0.tokenClasses }
        #expect(others.allSatisfy { $0 == .base })
    }

    @Test func valueNormRanksByNorm() throws {
        var page = OwnedPage.random(tokens: 40, seed: 2)
        page.identity.firstToken = 64
        for token in [5, 11, 39] {
            for channel in 0..<16 { page.layers[0]?.value.setBits(token * 16 + channel, ElementType.bfloat16.bits(of: 50)) }
        }
        var options = EncoderOptions()
        options.protection = .valueNorm(fraction: 3.0 / 40)
        let classes = try page.encode(.named("vidkv-1.5-1.66"), options: options).withImage { $0.tokenClasses }
        #expect(classes.indices.filter { classes[$0] == .salient } == [5, 11, 39])
    }

    @Test func anomalousChannelsAreThoseOfGreatestRange() throws {
        var page = OwnedPage.random(heads: 2, tokens: 64, keyDim: 16, seed: 3)
        page.identity.firstToken = 64
        for token in 0..<64 {
            page.layers[0]?.key.setBits(token * 16 + 7, ElementType.bfloat16.bits(of: token % 2 == 0 ? 100 : -100))
            page.layers[0]?.key.setBits((64 + token) * 16 + 2, ElementType.bfloat16.bits(of: token % 2 == 0 ? 100 : -100))
        }
        let described = try page.encode(.named("vidkv-1.25-1.58")).withImage { try $0.describe(layer: 0) }
        #expect(described.anomalousChannels.map(\.count) == [4, 4])
        #expect(described.anomalousChannels[0].contains(7) && described.anomalousChannels[1].contains(2))
        #expect(described.storedBytes(of: .codes) > described.storedBytes(of: .scales))
        var options = EncoderOptions()
        options.maskScope = .perLayer
        let shared = try page.encode(.named("vidkv-1.25-1.58"), options: options).withImage { try $0.describe(layer: 0) }
        #expect(shared.anomalousChannels[0] == shared.anomalousChannels[1])
    }

    @Test func ofChannelsOfEqualRangeTheFirstAreAnomalous() throws {
        var page = OwnedPage.random(heads: 1, tokens: 64, keyDim: 16, seed: 3)
        page.identity.firstToken = 64
        for token in 0..<64 {
            for channel in 0..<16 {
                let size: Float = channel == 9 ? 2 : channel < 3 ? 0 : 1
                page.layers[0]?.key.setBits(token * 16 + channel, ElementType.bfloat16.bits(of: token % 2 == 0 ? size : -size))
            }
        }
        let described = try page.encode(.named("vidkv-1.25-1.58")).withImage { try $0.describe(layer: 0) }
        #expect(described.anomalousChannels == [[3, 4, 5, 9]])
    }

    @Test func refusesInputThatCannotBeMeant() throws {
        let good = OwnedPage.random(tokens: 16, rotary: RotaryParameters(theta: 10, dim: 16), seed: 1)
        let profile = try Profile.named("int4")
        let changes: [(String, (inout OwnedPage) -> Void)] = [
            ("tokens", { $0.tokenCount = 17 }), ("no tokens", { $0.tokenCount = 0 }), ("many tokens", { $0.tokenCount = 4097 }),
            ("no layers", { $0.layers = [] }), ("type", { $0.elementType = .float16 }), ("exact", { $0.exact = [16] }),
            ("salient", { $0.salient = [-1] }), ("heads", { $0.layers[0]?.geometry.keyValueHeads = 3 }),
            ("dim", { $0.layers[0]?.geometry.keyDim = 8 }), ("value dim", { $0.layers[0]?.geometry.valueDim = 0 }),
            ("first", { $0.layers[0]?.firstToken = 1 }), ("sequence", { $0.identity.firstToken = -1 }),
            ("far", { $0.identity.firstToken = .max }), ("beyond", { $0.identity.firstToken = 1 << 40 }),
            ("positions", { $0.positions = [[1, 2]] }), ("streams", { $0.positions = [] }),
            ("rotary", { $0.layers[0]?.geometry.rotary = RotaryParameters(theta: 10, dim: 18) }),
            ("nan", { $0.layers[0]?.geometry.rotary = RotaryParameters(inverseFrequencies: [.nan]) }),
            ("sections", { $0.layers[0]?.geometry.rotary = RotaryParameters(theta: 10, dim: 16, sections: [1, 2]) }),
            ("window", { $0.layers[0]?.geometry.slidingWindow = 0 }),
        ]
        for (name, change) in changes {
            var page = good
            change(&page)
            let error = #expect(throws: CodecError.self, "\(name)") { try page.encode(profile) }
            #expect(error?.code == .invalidArgument, "\(name)")
        }
        for group in [0, 7, 12, 2048] {
            var options = EncoderOptions()
            options.groupSize = group
            #expect(throws: CodecError.self) { try good.encode(profile, options: options) }
        }
        #expect(throws: CodecError.self) { try good.encode(profile, executor: { _, _ in }) }
    }

    @Test func groupSizesWork() throws {
        for group in [8, 64, 128, 1024] {
            var options = EncoderOptions()
            options.groupSize = group
            let page = OwnedPage.random(tokens: 200, keyDim: 24, valueDim: 24, seed: 4)
            for profile in Profile.all where !profile.isExact {
                let encoded = try page.encode(profile, options: options)
                #expect(encoded.meanError.key < 0.7 && encoded.meanError.value < 0.7)
                _ = try encoded.decode(layer: 0, tokens: 70..<130, as: .float16)
            }
        }
    }
}
