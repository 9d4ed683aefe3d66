import ArgumentParser
import KVCodec
import ReelKV
import Rendering
import Reports

/// The longest prefix of a query among very many stored pages. Index only: the pages have no images.
struct PrefixBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prefix",
        abstract: "Times the longest-prefix look-up of a query of 25 pages among 1,000,000 stored pages (index only).")

    @Option(help: "Pages in the index.") var pages = 1_000_000
    @Option(help: "Tokens of a query; a page has 256.") var queryTokens = 6_400
    @Option(help: "Look-ups to time.") var lookups = 2_000
    @Flag(help: "Print JSON.") var json = false

    private struct Row: Encodable {
        var pages: Int
        var queryTokens: Int
        var medianSeconds: Double
        var p99Seconds: Double
        var openingSeconds: Double
        var indexBytes: Int

        enum CodingKeys: String, CodingKey {
            case pages
            case queryTokens = "query_tokens"
            case medianSeconds = "median_seconds"
            case p99Seconds = "p99_seconds"
            case openingSeconds = "opening_seconds"
            case indexBytes = "index_bytes"
        }
    }

    private static let pagesPerSequence = 25
    private static let pageTokens = 256

    func run() throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let sequences = max(1, pages / Self.pagesPerSequence)
        try fill(folder.path + "/store", sequences)
        // Opening checks all of the index.
        var opened: Store?
        let opening = try ContinuousClock().measure { opened = try Store(opening: folder.path + "/store") }
        guard let store = opened else { return }
        let indexBytes = try store.statistics().indexBytes

        var random = SplitMix64(seed: 42)
        var times: [Duration] = []
        var matched = 0
        let clock = ContinuousClock()
        for lookup in 0..<lookups + lookups / 10 {
            let query = try tokens(of: Int(random.next() % UInt64(sequences)), count: queryTokens)
            let start = clock.now
            let prefix = try store.longestPrefix(of: query, model: "index")
            let time = clock.now - start
            matched = prefix.tokenCount
            if lookup >= lookups / 10 { times.append(time) }
        }
        guard matched == queryTokens else { throw ValidationError("matched \(matched) of \(queryTokens) tokens") }
        times.sort()
        if json {
            let row = Row(
                pages: sequences * Self.pagesPerSequence, queryTokens: queryTokens,
                medianSeconds: times[times.count / 2].seconds, p99Seconds: times[times.count * 99 / 100].seconds,
                openingSeconds: opening.seconds, indexBytes: indexBytes)
            print(try JSONOutput.text(row, pretty: true))
            return
        }
        print("opening, which checks the index of \(indexBytes >> 20) MiB: \(opening.formatted)")
        print("longest prefix of \(queryTokens) tokens, all matched, \(lookups) look-ups:")
        print("  median \(times[times.count / 2].formatted), p99 \(times[times.count * 99 / 100].formatted)")
    }

    /// All sequences share a system prompt, then differ: what a busy server's index looks like.
    private func tokens(of sequence: Int, count: Int) throws -> TokenSequence {
        var random = SplitMix64(seed: UInt64(sequence) &* 0x9E37_79B9)
        let prompt = (0..<20).map { Int32(1_000 + $0) }
        return try TokenSequence(ids: prompt + (20..<max(20, count)).map { _ in Int32(random.next() % 150_000) })
    }

    private func fill(_ path: String, _ sequences: Int) throws {
        let store = try Store.create(at: path)
        try store.addModel(
            ModelSpec(
                name: "index", fingerprint: .blake2b([1]), elementType: .float16,
                layers: [LayerGeometry(keyValueHeads: 1, keyDim: 64, valueDim: 64)]))
        let time = try ContinuousClock().measure { try enter(sequences, into: store) }
        if !json { print("entered \(sequences * Self.pagesPerSequence) pages of \(sequences) sequences in \(time.formatted)") }
    }

    private func enter(_ sequences: Int, into store: Store) throws {
        let count = Self.pagesPerSequence * Self.pageTokens
        for start in stride(from: 0, to: sequences, by: 1_000) {
            try store.enterWithoutImages(
                try (start..<min(sequences, start + 1_000)).map { ("s\($0)", try tokens(of: $0, count: count)) },
                model: "index")
        }
    }
}
