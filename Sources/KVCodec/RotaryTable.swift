import CKVKernels

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
        let pairs = frequencies.count
        let runs = Self.runs(of: parameters, streamCount: positions.streamCount)
        var sines = [Float](repeating: 0, count: tokens.count * pairs)
        cosines = [Float](unsafeUninitializedCapacity: tokens.count * pairs) { cosines, count in
            sines.withUnsafeMutableBufferPointer { sines in
                guard let cosines = cosines.baseAddress, let sines = sines.baseAddress else { return }
                frequencies.withUnsafeBufferPointer { frequencies in
                    for (row, token) in tokens.enumerated() {
                        for (stream, run) in runs {
                            let at = row * pairs + run.lowerBound
                            kv_rotary_angles(
                                Double(positions.position(of: token, stream: stream)),
                                frequencies.baseAddress.map { $0 + run.lowerBound }, run.count, cosines + at, sines + at)
                        }
                    }
                }
            }
            count = tokens.count * pairs
        }
        self.sines = sines
    }

    /// Cosines and sines together.
    var floatCount: Int { 2 * cosines.count }

    /// Which position stream each run of pairs follows.
    private static func runs(of parameters: RotaryParameters, streamCount: Int) -> [(stream: Int, pairs: Range<Int>)] {
        let pairs = parameters.inverseFrequencies.count
        guard streamCount > 1, let sections = parameters.sections else { return [(0, 0..<pairs)] }
        var runs: [(stream: Int, pairs: Range<Int>)] = []
        var first = 0
        for (section, count) in sections.enumerated() {
            runs.append((min(section, streamCount - 1), first..<first + count))
            first += count
        }
        return runs
    }

    /// Whether all channels are turned, each with the one half of them further on.
    func pairsHalves(ofDim dim: Int) -> Bool {
        parameters.pairing == .halves && 2 * parameters.inverseFrequencies.count == dim
    }

    /// Calls `body` with cosines and sines `[tokens][pairs]`.
    func withTables<R>(_ body: (_ cosines: UnsafePointer<Float>?, _ sines: UnsafePointer<Float>?) -> R) -> R {
        cosines.withUnsafeBufferPointer { cosines in
            sines.withUnsafeBufferPointer { body(cosines.baseAddress, $0.baseAddress) }
        }
    }

    /// Loads a head's rows turned back (`kv_load_keys`).
    /// - Parameter firstToken: the token of the page that is the head's first.
    func load(
        _ head: kv_head, tokens: [UInt32], firstToken: Int, to rows: UnsafeMutablePointer<Float>,
        ranges: UnsafeMutablePointer<Float>
    ) -> Int32 {
        let pairs = parameters.inverseFrequencies.count
        return withTables { cosines, sines in
            kv_load_keys(
                head, tokens, tokens.count, cosines.map { $0 + firstToken * pairs }, sines.map { $0 + firstToken * pairs }, pairs,
                parameters.pairing == .interleaved ? 1 : 0, rows, ranges)
        }
    }

    /// Turns rows `[count, dim]` of the given tokens of the page; direction 1 applies the embedding, -1 undoes it.
    func rotate(_ rows: UnsafeMutablePointer<Float>, dim: Int, tokens: UnsafeBufferPointer<UInt32>, direction: Int32) {
        withTables { cosines, sines in
            kv_rotate(
                rows, tokens.count, dim, tokens.baseAddress, cosines, sines, parameters.inverseFrequencies.count,
                parameters.pairing == .interleaved ? 1 : 0, direction)
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

/// Cosines and sines of one token.
package enum RotaryAngles {
    /// The floats nearest to cosine and sine of `position * frequencies[i]`.
    package static func at(position: Double, frequencies: [Double]) -> (cosines: [Float], sines: [Float]) {
        var cosines = [Float](repeating: 0, count: frequencies.count)
        var sines = cosines
        kv_rotary_angles(position, frequencies, frequencies.count, &cosines, &sines)
        return (cosines, sines)
    }
}
