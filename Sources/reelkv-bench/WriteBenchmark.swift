import ArgumentParser
import KVCodec
import ReelKV

/// A long stream, as a prefill would hand it over: how fast it is stored, and in how much memory.
struct WriteBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write",
        abstract: "Streams 100,000 tokens of a 28-layer, 4-head, 128-dim model into a store; prints rate and peak memory.")

    @Option(help: "Tokens to write.") var tokens = 100_000
    @Option(help: "Tokens per append.") var chunk = 512
    @Option(help: "The profile to write with.") var profile = "vidkv-1.5-1.58"

    func run() throws {
        let profile = try Profile.named(profile)
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let store = try Store.create(at: folder.path + "/store")
        try store.addModel(SyntheticStream.model)
        let stream = SyntheticStream(chunk: chunk)
        defer { stream.deallocate() }
        let seconds = try ContinuousClock().measure {
            try stream.write(tokens, to: store, as: .video("stream"), profile: profile)
        }.seconds
        let bytes = Double(tokens * SyntheticStream.model.exactBytesPerToken)
        let statistics = try store.statistics()
        let megabytes = { (count: Int) in rounded(Double(count) / 1e6) }
        print("\(tokens) tokens, \(rounded(bytes / 1e9)) GB of bf16, profile \(profile.name):")
        print("  \(rounded(seconds)) s, \(rounded(bytes / 1e6 / seconds)) MB/s of input, durable")
        print(
            "  peak resident memory \(megabytes(peakResidentBytes())) MB, of which \(megabytes(stream.byteCount)) MB are the input chunk"
        )
        print("  stored \(megabytes(statistics.storedBytes)) MB (random input: no figure of compression)")
    }
}
