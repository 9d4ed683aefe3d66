import KVCodec
import KVMetrics
import Testing

@Suite struct GoldenErrorTests {
    @Test func quantizersReachTheirErrorOnGaussianValues() throws {
        for golden in try GoldenError.measure() {
            #expect(
                abs(golden.measured / golden.expected - 1) < 0.02, "\(golden.name): \(golden.measured), not \(golden.expected)")
        }
    }

    @Test func defaultsAreNoWorseThanThePlainSchemes() throws {
        let values = GoldenError.gaussian(count: 32 * 64 * 128, seed: 2)
        let error = { (quantizer: Quantizer, options: EncoderOptions) in
            try normalizedSquaredError(
                of: GroupQuantizer.roundTrip(values, rows: 32 * 64, columns: 128, quantizer: quantizer, options: options),
                against: values)
        }
        var clip = EncoderOptions()
        clip.scaleSearch = .clip
        #expect(try error(.uniform(bits: 2), EncoderOptions()) < error(.uniform(bits: 2), clip))
        #expect(try error(.uniform(bits: 4), EncoderOptions()) < 0.0061)
        #expect(try error(.uniform(bits: 8), EncoderOptions()) < 0.00005)
        // Balancing trades squared error for errors that cancel: a little more of the one, hardly any of the other.
        var plain = EncoderOptions()
        plain.balancesErrors = false
        let balanced = try error(.ternary, EncoderOptions())
        let nearest = try error(.ternary, plain)
        #expect(balanced > nearest && balanced < 1.06 * nearest)
        #expect(try groupMeanError(values, EncoderOptions()) < 0.3 * groupMeanError(values, plain))
    }

    /// Mean square of the summed errors of groups.
    private func groupMeanError(_ values: [Float], _ options: EncoderOptions) throws -> Double {
        let decoded = try GroupQuantizer.roundTrip(values, rows: 32 * 64, columns: 128, quantizer: .ternary, options: options)
        var sum = 0.0
        for group in 0..<64 {
            for column in 0..<128 {
                let rows = group * 32..<(group + 1) * 32
                let error = rows.reduce(Float(0)) { $0 + decoded[$1 * 128 + column] - values[$1 * 128 + column] }
                sum += Double(error * error)
            }
        }
        return sum
    }

    @Test func normalizedErrorIsWhatItSays() {
        #expect(normalizedSquaredError(of: [1, 2, 3], against: [1, 2, 3]) == 0)
        #expect(normalizedSquaredError(of: [0, 0], against: [3, 4]) == 1)
        #expect(relativeDistance(of: [3, 5], to: [3, 4]) == 0.2)
        #expect(normalizedSquaredError(of: [9, 4], against: [.nan, 4]) == 0)
    }

    @Test func attentionIsSoftmaxOfScaledProducts() throws {
        // Two tokens, dim 4: scores 2 and 0 over sqrt(4).
        let queries = OwnedTensor(values: [2, 0, 0, 0, 0, 0, 0, 0], heads: 2, tokens: 1, dim: 4, elementType: .float32)
        let key = OwnedTensor(values: [2, 0, 0, 0, 0, 1, 0, 0], heads: 1, tokens: 2, dim: 4, elementType: .float32)
        let value = OwnedTensor(values: [1, 0], heads: 1, tokens: 2, dim: 1, elementType: .float32)
        let other = OwnedTensor(values: [1, 1], heads: 1, tokens: 2, dim: 1, elementType: .float32)
        try queries.withView { queries in
            try key.withView { key in
                try value.withView { value in
                    let sample = try AttentionSample(queries: queries, key: key, value: value)
                    let output = sample.output()
                    #expect(abs(output[0] - 0.880797) < 1e-5)
                    #expect(abs(output[1] - 0.5) < 1e-6)
                    #expect(try sample.error(key: key, value: value) == 0)
                    let error = try other.withView { try sample.error(key: key, value: $0) }
                    #expect(abs(error - 0.508) < 0.01)
                    #expect(throws: CodecError.self) { try AttentionSample(queries: queries, key: key, value: key.tokens(0..<1)) }
                }
            }
        }
    }
}
