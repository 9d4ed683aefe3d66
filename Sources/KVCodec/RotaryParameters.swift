#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Rotary position embedding of a layer's keys (RoPE, arXiv 2104.09864): pair `i` of a key turns by
/// `position * inverseFrequencies[i]`. Channels beyond the pairs are not rotated.
public struct RotaryParameters: Hashable, Sendable {
    /// Which two channels make pair `i`, of `n` pairs.
    public enum Pairing: UInt8, Hashable, Sendable {
        /// Channels `i` and `i + n` (transformers' `rotate_half`).
        case halves = 0
        /// Channels `2i` and `2i + 1` (the paper's own order, GPT-J).
        case interleaved = 1
    }

    /// Radians per position, one per pair.
    public var inverseFrequencies: [Float]
    public var pairing: Pairing
    /// M-RoPE (Qwen2-VL): how many consecutive pairs follow each position stream (time, height, width); nil for one stream.
    public var sections: [Int]?

    public init(inverseFrequencies: [Float], pairing: Pairing = .halves, sections: [Int]? = nil) {
        self.inverseFrequencies = inverseFrequencies
        self.pairing = pairing
        self.sections = sections
    }

    /// The unscaled frequencies `theta^(-2i/dim)` for `dim` rotated channels.
    public init(theta: Double, dim: Int, pairing: Pairing = .halves, sections: [Int]? = nil) {
        let frequencies = (0..<dim / 2).map { Float(pow(theta, -2 * Double($0) / Double(dim))) }
        self.init(inverseFrequencies: frequencies, pairing: pairing, sections: sections)
    }

    /// Position streams the rotation needs: 1, or one per M-RoPE section.
    public var positionStreams: Int { sections?.count ?? 1 }
}
