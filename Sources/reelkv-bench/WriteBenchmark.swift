import ArgumentParser
import KVCodec
import ReelKV

/// A long stream of a 7B-sized model, as a prefill would hand it over: how fast it is stored, and in how much memory.
struct WriteBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write",
        abstract: "Streams 100,000 tokens of a 28-layer, 4-head, 128-dim model into a store; prints rate and peak memory.")

    @Option(help: "Tokens to write.") var tokens = 100_000
    @Option(help: "Tokens per append.") var chunk = 512
    @Option(help: "The profile to write with.") var profile = "vidkv-1.5-1.58"

    private static let layers = 28
    private static let heads = 4
    private static let dim = 128

    func run() throws {
        let profile = try Profile.named(profile)
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let store = try Store.create(at: folder.path + "/store")
        try store.addModel(
            ModelSpec(
                name: "7b", fingerprint: .blake2b([7]), elementType: .bfloat16,
                layers: Array(
                    repeating: LayerGeometry(
                        keyValueHeads: Self.heads, keyDim: Self.dim, valueDim: Self.dim,
                        rotary: RotaryParameters(theta: 1_000_000, dim: Self.dim)), count: Self.layers)))
        let memory = randomChunk()
        defer { memory.deallocate() }
        let writer = try store.writer(for: .video("stream"), model: "7b", profile: profile)
        let clock = ContinuousClock()
        let start = clock.now
        var done = 0
        while done < tokens {
            let count = min(chunk, tokens - done)
            let ids = (done..<done + count).map { Int32($0) }
            try writer.append(try TokenSequence(ids: ids), layers: try layers(of: memory, count: count))
            done += count
        }
        try writer.finish()
        let seconds = (clock.now - start).seconds
        let bytes = Double(tokens * Self.layers * Self.heads * 2 * Self.dim * 2)
        let statistics = try store.statistics()
        print("\(tokens) tokens, \(rounded(bytes / 1e9)) GB of bf16, profile \(profile.name):")
        print("  \(rounded(seconds)) s, \(rounded(bytes / 1e6 / seconds)) MB/s of input, durable")
        print(
            "  peak resident memory \(rounded(Double(peakResidentBytes()) / 1e6)) MB, of which \(rounded(Double(memory.count) / 1e6)) MB are the input chunk"
        )
        print(
            "  stored \(rounded(Double(statistics.storedBytes) / 1e9)) GB, \(rounded(statistics.bitsPerElement)) bits per element (random input: no figure of compression)"
        )
    }

    /// bf16 numbers between -2 and 2, for one chunk of all layers.
    private func randomChunk() -> UnsafeMutableRawBufferPointer {
        let count = chunk * Self.layers * Self.heads * 2 * Self.dim
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * count, alignment: 64)
        var random = SplitMix64(seed: 1)
        for index in 0..<count {
            let value = Float(Int64(bitPattern: random.next()) >> 40) / Float(1 << 22)
            memory.storeBytes(of: UInt16(truncatingIfNeeded: value.bitPattern >> 16), toByteOffset: 2 * index, as: UInt16.self)
        }
        return memory
    }

    private func layers(of memory: UnsafeMutableRawBufferPointer, count: Int) throws -> [LayerTokens] {
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
