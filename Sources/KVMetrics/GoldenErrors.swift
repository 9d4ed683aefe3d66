import KVCodec

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A quantizer's error on a Gaussian source, beside what theory and independent implementations say.
public struct GoldenError: Hashable, Sendable {
    public let name: String
    /// NMSE for groups of 32 independent Gaussian values, with exact scales.
    public let expected: Double
    /// NMSE of this implementation, with its rounded scales.
    public let measured: Double
}

extension GoldenError {
    /// Measures every quantizer on `groupCount` groups of 32 Gaussian values per channel, 128 channels.
    public static func measure(groupCount: Int = 64, seed: UInt64 = 1) throws -> [GoldenError] {
        let rows = 32 * groupCount
        let values = gaussian(count: rows * 128, seed: seed)
        return try cases.map { name, expected, quantizer, options in
            let decoded = try GroupQuantizer.roundTrip(values, rows: rows, columns: 128, quantizer: quantizer, options: options)
            return GoldenError(
                name: name, expected: expected, measured: normalizedSquaredError(of: decoded, against: values))
        }
    }

    private static var cases: [(String, Double, Quantizer, EncoderOptions)] {
        let minMax = options { $0.scaleSearch = .minMax }
        let nearest = options { $0.balancesErrors = false }
        return [
            ("min-max 1 bit", 1.96, .uniform(bits: 1), minMax),
            ("min-max 2 bit", 0.154, .uniform(bits: 2), minMax),
            ("min-max 3 bit", 0.028, .uniform(bits: 3), minMax),
            ("min-max 4 bit", 0.0061, .uniform(bits: 4), minMax),
            ("clip search 2 bit", 0.098, .uniform(bits: 2), options { $0.scaleSearch = .clip }),
            ("{0, s} 1 bit", 0.676, .sign, options { $0.levels = .published }),
            ("+-s 1 bit", 0.352, .sign, options { $0.levels = .magnitude }),
            ("mean +- s 1 bit", 0.341, .sign, nearest),
            ("ternary, centroid", 0.182, .ternary, nearest),
            (
                "ternary, mean magnitude", 0.269, .ternary,
                options {
                    $0.levels = .magnitude
                    $0.balancesErrors = false
                }
            ),
            (
                "ternary from 0.5, centroid", 0.203, .ternary,
                options {
                    $0.ternaryThreshold = 0.5
                    $0.balancesErrors = false
                }
            ),
        ]
    }

    /// The finest scales, so that what is measured is the quantizer.
    private static func options(_ change: (inout EncoderOptions) -> Void) -> EncoderOptions {
        var options = EncoderOptions()
        options.scaleStepsPerOctave = 16
        change(&options)
        return options
    }

    /// Independent standard Gaussian values (Box and Muller, 1958), the same for the same seed.
    public static func gaussian(count: Int, seed: UInt64) -> [Float] {
        var generator = SplitMix64(seed: seed)
        var uniform: Double { (Double(generator.next() >> 11) + 0.5) * 0x1p-53 }
        return (0..<count).map { _ in Float((-2 * log(uniform)).squareRoot() * cos(2 * Double.pi * uniform)) }
    }
}
