import KVCodec

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// How a model stretches its rotary frequencies to reach further than it was trained.
///
/// Formulas as in transformers' `modeling_rope_utils.py`, by whose names configs refer to them. A factor that a scaling
/// applies to keys as a whole (YaRN's attention factor) is no matter here: it survives un-rotating and rotating again.
enum RotaryScaling: Hashable, Sendable {
    case none
    /// All frequencies divided (arXiv 2306.15595).
    case linear(factor: Double)
    /// Low frequencies divided, high ones kept, between them a smooth transition (Llama 3.1).
    case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalContext: Double)
    /// A ramp over the pairs, from kept to divided (YaRN, arXiv 2309.00071, section 3.2).
    case yarn(factor: Double, betaFast: Double, betaSlow: Double, originalContext: Double, truncates: Bool)

    /// Radians per position for each pair of `dim` rotated channels.
    func inverseFrequencies(theta: Double, dim: Int) -> [Float] {
        let plain = (0..<dim / 2).map { pow(theta, -2 * Double($0) / Double(dim)) }
        switch self {
        case .none:
            return plain.map { Float($0) }
        case .linear(let factor):
            return plain.map { Float($0 / factor) }
        case .llama3(let factor, let low, let high, let context):
            return plain.map { frequency in
                let turns = context * frequency / (2 * .pi)
                if turns > high { return Float(frequency) }
                if turns < low { return Float(frequency / factor) }
                let smooth = (turns - low) / (high - low)
                return Float((1 - smooth) * frequency / factor + smooth * frequency)
            }
        case .yarn(let factor, let betaFast, let betaSlow, let context, let truncates):
            func pair(turning turns: Double) -> Double {
                Double(dim) * log(context / (turns * 2 * .pi)) / (2 * log(theta))
            }
            let (fast, slow) = (pair(turning: betaFast), pair(turning: betaSlow))
            let low = max(truncates ? fast.rounded(.down) : fast, 0)
            var high = min(truncates ? slow.rounded(.up) : slow, Double(dim - 1))
            // The reference's guard against a ramp of no length.
            if high == low { high += 0.001 }
            return plain.enumerated().map { index, frequency in
                let ramp = min(max((Double(index) - low) / (high - low), 0), 1)
                return Float(frequency / factor * ramp + frequency * (1 - ramp))
            }
        }
    }
}

/// A rotation read from a file: known, or of a kind that is not, with its name.
enum ReadScaling {
    case known(RotaryScaling)
    case unknown(String)
}

extension Fields {
    /// The scaling of `rope_scaling`, `rope_parameters` or a spec's `scaling`.
    ///
    /// - Parameter context: the model's `max_position_embeddings`, where the file has it.
    func rotaryScaling(context: Double?) throws(ModelSpecFileError) -> ReadScaling {
        let oldType = try string("type")
        let type = try string("rope_type") ?? oldType ?? "default"
        let limit = "a number above 0"
        switch type {
        // "mrope" only says that there are several position streams.
        case "default", "mrope":
            return .known(.none)
        case "linear":
            return .known(.linear(factor: try required(try positive("factor"), "factor", limit)))
        case "llama3":
            let low = try required(try positive("low_freq_factor"), "low_freq_factor", limit)
            let high = try required(try positive("high_freq_factor"), "high_freq_factor", limit)
            guard high > low else { throw error("high_freq_factor", "must be above low_freq_factor.") }
            let original = try positive("original_max_position_embeddings")
            return .known(
                .llama3(
                    factor: try required(try positive("factor"), "factor", limit), lowFrequencyFactor: low,
                    highFrequencyFactor: high,
                    originalContext: try required(original, "original_max_position_embeddings", limit)))
        case "yarn":
            let given = try positive("original_max_position_embeddings")
            let original = try required(given ?? context, "original_max_position_embeddings", limit)
            let ratio = given.flatMap { given in context.map { $0 / given } }
            return .known(
                .yarn(
                    factor: try required(try positive("factor") ?? ratio, "factor", limit),
                    betaFast: try positive("beta_fast") ?? 32, betaSlow: try positive("beta_slow") ?? 1,
                    originalContext: original, truncates: try bool("truncate") ?? true))
        default:
            return .unknown(type)
        }
    }
}
