import ArgumentParser
import KVCodec
import ReelKV
import Rendering
import Reports

/// A long stream, as a prefill would hand it over: how fast it is stored, and in how much memory.
struct WriteBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write",
        abstract: "Streams 100,000 tokens of a 28-layer, 4-head, 128-dim model into a store; prints rate and peak memory.")

    @Option(help: "Tokens to write.") var tokens = 100_000
    @Option(help: "Tokens per append.") var chunk = 512
    @Option(help: "The profile to write with.") var profile = "vidkv-1.5-1.58"
    @Flag(help: "Wait for half the disk flushes.") var relaxed = false
    @Flag(help: "Store for an encrypted tenant.") var encrypted = false
    @Flag(help: "Print JSON.") var json = false

    private struct Row: Encodable {
        var profile: String
        var tokens: Int
        var inputBytes: Int
        var storedBytes: Int
        var seconds: Double
        var peakResidentBytes: Int
        var inputChunkBytes: Int

        enum CodingKeys: String, CodingKey {
            case profile, tokens, seconds
            case inputBytes = "input_bytes"
            case storedBytes = "stored_bytes"
            case peakResidentBytes = "peak_resident_bytes"
            case inputChunkBytes = "input_chunk_bytes"
        }
    }

    func run() throws {
        let profile = try Profile.named(profile)
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        _ = try Store.create(at: folder.path + "/store")
        let store = try Store(opening: folder.path + "/store", durability: relaxed ? .relaxed : .durable)
        try store.addModel(SyntheticStream.model)
        if encrypted { try store.createTenant(named: Store.defaultTenant, key: .random()) }
        let stream = SyntheticStream(chunk: chunk)
        defer { stream.deallocate() }
        let seconds = try ContinuousClock().measure {
            try stream.write(tokens, to: store, as: .video("stream"), profile: profile)
        }.seconds
        let row = Row(
            profile: profile.name, tokens: tokens, inputBytes: tokens * SyntheticStream.model.exactBytesPerToken,
            storedBytes: try store.statistics().storedBytes, seconds: seconds, peakResidentBytes: peakResidentBytes(),
            inputChunkBytes: stream.byteCount)
        if json { print(try JSONOutput.text(row, pretty: true)) } else { show(row, store.durability) }
    }

    private func show(_ row: Row, _ durability: Store.Durability) {
        let megabytes = { (count: Int) in rounded(Double(count) / 1e6) }
        print("\(row.tokens) tokens, \(rounded(Double(row.inputBytes) / 1e9)) GB of bf16, profile \(row.profile):")
        print("  \(rounded(row.seconds)) s, \(rounded(Double(row.inputBytes) / 1e6 / row.seconds)) MB/s of input, \(durability)")
        print(
            "  peak resident memory \(megabytes(row.peakResidentBytes)) MB, of which \(megabytes(row.inputChunkBytes)) MB are the input chunk"
        )
        print("  stored \(megabytes(row.storedBytes)) MB")
    }
}
