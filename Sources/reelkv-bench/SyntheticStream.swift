import KVCodec
import ReelKV

/// A 7B-sized model's cache, endlessly: 28 layers of 4 KV heads of 128 channels, bf16, the same random chunk again and again.
///
/// For measuring speed and memory. It has what compression feeds on in real caches, roughly: channels of their own mean and scale, some
/// of the keys' much larger than others, and neighbouring tokens that are alike (a correlation of 0.7).
struct SyntheticStream {
    static let layers = 28
    static let heads = 4
    static let dim = 128

    let chunk: Int
    private let memory: UnsafeMutableRawBufferPointer

    static let model = ModelSpec(
        name: "7b", fingerprint: .blake2b([7]), elementType: .bfloat16,
        layers: Array(
            repeating: LayerGeometry(
                keyValueHeads: heads, keyDim: dim, valueDim: dim, rotary: RotaryParameters(theta: 1_000_000, dim: dim)),
            count: layers))

    /// - Parameter chunk: tokens per append.
    init(chunk: Int) {
        self.chunk = chunk
        let count = chunk * Self.layers * Self.heads * 2 * Self.dim
        memory = .allocate(byteCount: 2 * count, alignment: 64)
        var random = SplitMix64(seed: 1)
        for matrix in 0..<count / (chunk * Self.dim) {
            var means: [Float] = []
            var scales: [Float] = []
            for channel in 0..<Self.dim {
                let isKey = matrix / Self.heads % 2 == 0
                let isLarge = isKey && (channel + matrix) % 32 == 0
                scales.append((isLarge ? 8 : 1) * (0.5 + abs(Self.gaussian(&random))))
                means.append(Self.gaussian(&random) * scales[channel])
            }
            var state = [Float](repeating: 0, count: Self.dim)
            for token in 0..<chunk {
                for channel in 0..<Self.dim {
                    state[channel] = 0.7 * state[channel] + 0.714 * Self.gaussian(&random)
                    let value = means[channel] + scales[channel] * state[channel]
                    memory.storeBytes(
                        of: UInt16(truncatingIfNeeded: value.bitPattern >> 16),
                        toByteOffset: 2 * ((matrix * chunk + token) * Self.dim + channel), as: UInt16.self)
                }
            }
        }
    }

    /// Nearly Gaussian, of variance 1: the sum of eight uniform bytes.
    private static func gaussian(_ random: inout SplitMix64) -> Float {
        let bits = random.next()
        var sum: UInt64 = 0
        for byte in 0..<8 { sum += bits >> (8 * UInt64(byte)) & 255 }
        return (Float(sum) - 1020) / 209
    }

    var byteCount: Int { memory.count }

    func deallocate() { memory.deallocate() }

    /// Writes `tokens` tokens and finishes.
    func write(_ tokens: Int, to store: Store, as name: SequenceName, profile: Profile) throws {
        let writer = try store.writer(for: name, model: Self.model.name, profile: profile)
        var done = 0
        while done < tokens {
            let count = min(chunk, tokens - done)
            let ids = (done..<done + count).map { Int32($0) }
            try writer.append(try TokenSequence(ids: ids), layers: try layers(count: count))
            done += count
        }
        try writer.finish()
    }

    func layers(count: Int) throws -> [LayerTokens] {
        let tensorBytes = chunk * Self.heads * Self.dim * 2
        let layout = TensorLayout.headsFirst(heads: Self.heads, tokens: chunk, dim: Self.dim)
        return try (0..<Self.layers).map { layer in
            let view = { (tensor: Int) in
                try TensorView(
                    bytes: UnsafeRawBufferPointer(memory), offset: (2 * layer + tensor) * tensorBytes, elementType: .bfloat16,
                    layout: layout
                ).tokens(0..<count)
            }
            return LayerTokens(key: try view(0), value: try view(1))
        }
    }
}
