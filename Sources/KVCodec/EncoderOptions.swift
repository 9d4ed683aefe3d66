/// Choices of the encoder that are not part of the profile. The defaults are the best known; the others are there to show what
/// each choice is worth. Nothing here changes the format: a decoder reads whatever was chosen.
public struct EncoderOptions: Hashable, Sendable {
    /// How scales and minima of evenly spaced levels are found.
    public enum ScaleSearch: Hashable, Sendable {
        /// From the group's minimum and maximum.
        case minMax
        /// The best of a few scales that clip the group's extremes.
        case clip
        /// Clipping, then a least-squares fit of the levels to the values.
        case leastSquares
    }

    /// What makes a key channel anomalous.
    public enum ChannelSelection: Hashable, Sendable {
        /// Maximum minus minimum.
        case range
        case variance
        /// Values farther from the channel's mean than three standard deviations of all of the head's values.
        case outlierCount
    }

    /// What shares one set of anomalous channels.
    public enum MaskScope: Hashable, Sendable {
        case perHead
        case perLayer
    }

    /// The levels of 1-bit and ternary codes.
    public enum Levels: Hashable, Sendable {
        /// Mean plus or minus mean deviation; zero and plus or minus the mean magnitude of the values that are not zero.
        case centroid
        /// Plus or minus the group's mean magnitude, ternary codes also zero.
        case magnitude
        /// What the published VidKV code decodes to: {0, s} and {-1, 0, 1} unscaled. For comparison only.
        case published
    }

    /// Which tokens are salient when the caller lists none, for profiles that give such tokens more bits.
    public enum Protection: Hashable, Sendable {
        /// Only those that the caller lists.
        case listed
        /// The fraction of a page's tokens whose values have the greatest norm over all layers: a ranking that needs no query.
        case valueNorm(fraction: Double)
        /// A fraction drawn at random, the same for the same seed and page position.
        case random(fraction: Double, seed: UInt64)
    }

    /// Consecutive tokens of one channel that share a scale: a multiple of 8 in 8...1024.
    public var groupSize = 32
    /// Tokens at the start of a sequence that are kept exact: attention sinks (arXiv 2309.17453).
    public var exactPrefix = 4
    /// Undo the rotary embedding of keys before quantizing, where its parameters are known.
    public var unrotatesKeys = true
    public var scaleSearch = ScaleSearch.leastSquares
    public var channelSelection = ChannelSelection.range
    public var maskScope = MaskScope.perHead
    public var levels = Levels.centroid
    /// A ternary code is zero up to this fraction of the group's mean magnitude.
    public var ternaryThreshold: Float = 0.7
    /// Fourier transform the key channels that get 1 bit.
    public var transformsKeys = true
    /// Round ternary values so that errors cancel within a group.
    public var balancesErrors = true
    public var protection = Protection.valueNorm(fraction: 0.2)
    /// Scale codes per octave for 1- and 2-bit codes: 1, 2, 4, 8 or 16; codes of more bits take four times as many, at most 16.
    public var scaleStepsPerOctave = 4

    public init() {}

    func check() throws(CodecError) {
        guard groupSize >= 8, groupSize <= 1024, groupSize % 8 == 0 else {
            throw .invalid("group size \(groupSize) is not a multiple of 8 in 8...1024")
        }
        guard exactPrefix >= 0 else { throw .invalid("exact prefix \(exactPrefix) is negative") }
        guard [1, 2, 4, 8, 16].contains(scaleStepsPerOctave) else {
            throw .invalid("\(scaleStepsPerOctave) scale codes per octave; choose 1, 2, 4, 8 or 16")
        }
        guard ternaryThreshold >= 0, ternaryThreshold < 16 else {
            throw .invalid("ternary threshold \(ternaryThreshold) is not within 0..<16")
        }
        switch protection {
        case .listed: break
        case .valueNorm(let fraction), .random(let fraction, _):
            guard fraction >= 0, fraction <= 1 else { throw .invalid("protected fraction \(fraction) is not within 0...1") }
        }
    }
}
