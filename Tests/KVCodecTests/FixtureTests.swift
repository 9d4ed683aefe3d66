import KVCodec
import KVMetrics
import Safetensors
import Testing

/// Profiles and encoder choices on the cache of a trained model (Tests/Fixtures): three layers over a video and over a text.
@Suite struct FixtureTests {
    /// A fixture cut to its first `tokens` tokens, as a sample.
    private func withSample<R>(_ name: String, tokens: Int, _ body: (CacheSample) throws -> R) throws -> R {
        let file = try SafetensorsFile(path: repositoryRoot + "/Tests/Fixtures/" + name)
        return try gather(file, 0, tokens: tokens, []) { layers in
            try body(CacheSample(elementType: .bfloat16, tokenCount: tokens, layers: layers))
        }
    }

    private func gather<R>(
        _ file: SafetensorsFile, _ index: Int, tokens: Int, _ layers: [CacheSample.Layer],
        _ body: ([CacheSample.Layer]) throws -> R
    ) throws -> R {
        guard index < 3 else { return try body(layers) }
        return try withView(file, "layers.\(index).key") { key in
            try withView(file, "layers.\(index).value") { value in
                try withView(file, "layers.\(index).query") { queries in
                    let geometry = LayerGeometry(
                        keyValueHeads: key.heads, keyDim: key.dim, valueDim: value.dim,
                        rotary: RotaryParameters(theta: 100_000, dim: key.dim))
                    let layer = CacheSample.Layer(
                        geometry: geometry, key: try key.tokens(0..<tokens), value: try value.tokens(0..<tokens),
                        queries: try queries.tokens(0..<4))
                    return try gather(file, index + 1, tokens: tokens, layers + [layer], body)
                }
            }
        }
    }

    private func withView<R>(_ file: SafetensorsFile, _ name: String, _ body: (TensorView) throws -> R) throws -> R {
        let shape = try file.info(of: name).shape
        return try file.withBytes(of: name) { bytes in
            try body(
                TensorView(
                    bytes: bytes, elementType: .bfloat16,
                    layout: .headsFirst(heads: shape[1], tokens: shape[2], dim: shape[3])))
        }
    }

    private func report(_ sample: CacheSample, _ name: String, _ change: (inout EncoderOptions) -> Void = { _ in }) throws
        -> ProfileReport
    {
        var options = EncoderOptions()
        change(&options)
        return try sample.report(profile: .named(name), options: options)
    }

    @Test func bitsAndErrorsOnTheVideo() throws {
        try withSample("video.safetensors", tokens: 771) { sample in
            let exact = try report(sample, "exact")
            #expect(exact.bitsPerElement < 0.72 * 16)
            #expect(exact.keyError == 0 && exact.valueError == 0 && exact.attentionError == 0)
            let limits: [(String, Double, Double)] = [
                ("int8", 8.8, 0.004), ("int4", 4.55, 0.02), ("vidkv-2-2", 2.42, 0.11), ("vidkv-1.5-1.58", 1.80, 0.165),
            ]
            for (name, bits, error) in limits {
                let report = try report(sample, name)
                #expect(report.bitsPerElement < bits, "\(name) \(report.bitsPerElement)")
                #expect(try #require(report.attentionError) < error, "\(name) \(report.attentionError ?? 0)")
            }
        }
    }

    /// A profile with no more bits for keys and none more for values takes no more bytes.
    @Test(arguments: ["video.safetensors", "text.safetensors"])
    func fewerBitsAreFewerBytes(file: String) throws {
        try withSample(file, tokens: 512) { sample in
            var sample = sample
            for index in sample.layers.indices { sample.layers[index].queries = nil }
            let reports = try Profile.all.map { try sample.report(profile: $0) }
            for one in reports {
                for other in reports where one.profile != other.profile {
                    let (a, b) = (one.profile, other.profile)
                    let fewer = (a.keyBits ?? 16) <= (b.keyBits ?? 16) && (a.valueBits ?? 16) <= (b.valueBits ?? 16)
                    let same = a.keyBits == b.keyBits && a.valueBits == b.valueBits
                    if fewer, !same { #expect(one.storedBytes <= other.storedBytes, "\(a) \(b)") }
                }
            }
        }
    }

    @Test(arguments: ["video.safetensors", "text.safetensors"], ["vidkv-2-2", "vidkv-1.5-1.58"])
    func choicesHelpAsTheyShould(file: String, name: String) throws {
        try withSample(file, tokens: 768) { sample in
            let best = try report(sample, name)
            let attention = try #require(best.attentionError)
            let sinksQuantized = try report(sample, name) { $0.exactPrefix = 0 }
            #expect(attention < 0.6 * (sinksQuantized.attentionError ?? 0))
            #expect(best.keyError < 0.9 * (try report(sample, name) { $0.unrotatesKeys = false }).keyError)
            #expect(best.keyError < 0.9 * (try report(sample, name) { $0.scaleSearch = .minMax }).keyError)
            #expect(best.keyError <= (try report(sample, name) { $0.scaleSearch = .clip }).keyError)
        }
    }

    @Test(arguments: ["video.safetensors", "text.safetensors"])
    func mixedPrecisionChoicesHelpAsTheyShould(file: String) throws {
        try withSample(file, tokens: 768) { sample in
            let name = "vidkv-1.5-1.58"
            let best = try report(sample, name)
            let attention = try #require(best.attentionError)
            #expect(attention < 0.5 * ((try report(sample, name) { $0.levels = .published }).attentionError ?? 0))
            #expect(best.keyError < (try report(sample, name) { $0.maskScope = .perLayer }).keyError)
            #expect(best.keyError < (try report(sample, name) { $0.channelSelection = .outlierCount }).keyError)
            #expect(attention < ((try report(sample, name) { $0.balancesErrors = false }).attentionError ?? 0))
            let salient = try report(sample, "vidkv-1.5-1.66")
            #expect(salient.valueError < best.valueError && salient.keyError == best.keyError)
        }
    }
}
