import CKVKernels

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Cosines and sines of a page's tokens: row `i`, pair `p` is the angle of token `firstToken + i` in pair `p`.
struct RotaryTable {
    let parameters: RotaryParameters
    let firstToken: Int
    let rowCount: Int
    private let cosines: [Float]
    private let sines: [Float]

    /// - Parameter positions: one stream, or one per M-RoPE section; each has an id for every token of `tokens`.
    init(parameters: RotaryParameters, positions: PagePositions, tokens: Range<Int>) {
        self.parameters = parameters
        self.firstToken = tokens.lowerBound
        self.rowCount = tokens.count
        let frequencies = parameters.inverseFrequencies.map(Double.init)
        let streams = Self.streams(of: parameters, count: positions.streamCount)
        var cosines: [Float] = []
        var sines: [Float] = []
        cosines.reserveCapacity(tokens.count * frequencies.count)
        sines.reserveCapacity(tokens.count * frequencies.count)
        for token in tokens {
            for (pair, frequency) in frequencies.enumerated() {
                let angle = Double(positions.position(of: token, stream: streams[pair])) * frequency
                cosines.append(Float(cos(angle)))
                sines.append(Float(sin(angle)))
            }
        }
        self.cosines = cosines
        self.sines = sines
    }

    /// Which position stream each pair follows.
    private static func streams(of parameters: RotaryParameters, count: Int) -> [Int] {
        guard count > 1, let sections = parameters.sections else {
            return Array(repeating: 0, count: parameters.inverseFrequencies.count)
        }
        return sections.enumerated().flatMap { Array(repeating: min($0, count - 1), count: $1) }
    }

    /// Turns rows `[count, dim]` of the given tokens of the page; direction 1 applies the embedding, -1 undoes it.
    func rotate(_ rows: UnsafeMutablePointer<Float>, dim: Int, tokens: UnsafeBufferPointer<UInt32>, direction: Int32) {
        cosines.withUnsafeBufferPointer { cosines in
            sines.withUnsafeBufferPointer { sines in
                kv_rotate(
                    rows, tokens.count, dim, tokens.baseAddress, cosines.baseAddress, sines.baseAddress,
                    parameters.inverseFrequencies.count, parameters.pairing == .interleaved ? 1 : 0, direction)
            }
        }
    }
}

/// Position ids of a page's tokens.
struct PagePositions: Hashable {
    let firstPosition: Int
    /// Explicit ids, `[stream][token]`; nil when token `i` is at `firstPosition + i`.
    let streams: [[Int32]]?

    var streamCount: Int { streams?.count ?? 1 }

    func position(of token: Int, stream: Int) -> Int {
        guard let streams else { return firstPosition + token }
        return Int(streams[stream][token])
    }
}
