import ArgumentParser
import Dispatch
import KVCodec
import Rendering
import Reports

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Encoding and decoding by themselves: no store, no file, and a layer (1 MB of elements) that the last cache holds. That is not arithmetic
/// alone: a restore puts rows past the caches, which can take less than to write them there. On all threads at once it also shows what the
/// processor's cores share.
struct CodecBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "codec",
        abstract: "Times encoding and decoding of a layer of a page that stays in the caches, on one thread and on all at once.")

    @Option(help: "Measurements; the median is printed.") var runs = 15
    @Option(help: "Only these profiles.") var profile = ["exact", "int8", "int4", "kivi-2", "vidkv-2-2", "vidkv-1.5-1.58"]
    @Flag(help: "Print JSON.") var json = false

    /// Nanoseconds an element of keys and values, of one thread alone and of each of all.
    private struct Row: Encodable {
        var profile: String
        var decodeAlone: Double
        var decodeTogether: Double
        var encodeAlone: Double
        var encodeTogether: Double
        var threads: Int

        enum CodingKeys: String, CodingKey {
            case profile, threads
            case decodeAlone = "decode_alone_ns"
            case decodeTogether = "decode_together_ns"
            case encodeAlone = "encode_alone_ns"
            case encodeTogether = "encode_together_ns"
        }
    }

    private static let tokens = 256
    private static let elements = 2 * tokens * SyntheticStream.heads * SyntheticStream.dim
    /// Of a layer, in each measurement.
    private static let repeats = 40

    func run() throws {
        let stream = SyntheticStream(chunk: Self.tokens)
        defer { stream.deallocate() }
        let layer = try stream.layers(count: Self.tokens)[0]
        let page = PageInput(
            identity: PageIdentity(
                modelFingerprint: SyntheticStream.model.fingerprint, chainHash: .zero, parentHash: .zero, firstToken: 0,
                tokens: []),
            tokenCount: Self.tokens, elementType: .bfloat16,
            layers: [LayerInput(geometry: SyntheticStream.model.layers[0], key: layer.key, value: layer.value)])
        let rows = try profile.map { try measure(try .named($0), page) }
        if json { print(try JSONOutput.text(rows, pretty: true)) } else { show(rows) }
    }

    private func show(_ rows: [Row]) {
        let threads = rows.first?.threads ?? 1
        var table = TextTable(
            .left("profile"), .right("decode"), .right("\(threads) at once"), .right("encode"), .right("\(threads) at once"))
        for row in rows {
            table.append(
                row.profile, rounded(row.decodeAlone), rounded(row.decodeTogether), rounded(row.encodeAlone),
                rounded(row.encodeTogether))
        }
        print("ns an element, on one thread and on each of \(threads); bf16, medians of \(runs):")
        print(table.text())
    }

    private func measure(_ profile: Profile, _ page: PageInput) throws -> Row {
        let encoder = PageEncoder(profile: profile)
        let encoded = try encoder.encode(page)
        let threads = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        let decode = { (threads: Int) in
            try median(of: threads) {
                let worker = try DecodingWorker(encoded.bytes)
                return { try worker.decode() }
            }
        }
        let encode = { (threads: Int) in try median(of: threads) { { _ = try encoder.encode(page) } } }
        return Row(
            profile: profile.name, decodeAlone: try decode(1), decodeTogether: try decode(threads), encodeAlone: try encode(1),
            encodeTogether: try encode(threads), threads: threads)
    }

    /// The median over the runs and threads of what `work` takes, an element.
    private func median(of threads: Int, _ work: () throws -> () throws -> Void) throws -> Double {
        let works = try (0..<threads).map { _ in try work() }
        var times: [Double] = []
        for _ in 0..<runs {
            let results = UnsafeMutableBufferPointer<Result<Double, any Error>>.allocate(capacity: threads)
            defer { results.deallocate() }
            results.initialize(repeating: .success(0))
            nonisolated(unsafe) let (own, all) = (results, works)
            DispatchQueue.concurrentPerform(iterations: threads) { thread in
                own[thread] = Result {
                    try ContinuousClock().measure { for _ in 0..<Self.repeats { try all[thread]() } }.seconds
                }
            }
            times += try results.map { try $0.get() }
        }
        return reelkv_bench.median(times) * 1e9 / Double(Self.repeats * Self.elements)
    }
}

/// Decodes a page of one layer, again and again to the same memory, of which no row is a number of whole cache lines: those would go past
/// the caches.
private final class DecodingWorker {
    private let bytes: UnsafeMutableRawBufferPointer
    private let target: UnsafeMutableRawBufferPointer
    private let image: PageImage
    private let scratch = DecodeScratch()
    private let views: [MutableTensorView]

    init(_ encoded: [UInt8]) throws {
        bytes = .allocate(byteCount: encoded.count, alignment: 64)
        bytes.copyBytes(from: encoded)
        image = try PageImage(parsing: UnsafeRawBufferPointer(bytes))
        let (heads, dim) = (SyntheticStream.heads, SyntheticStream.dim)
        let tokens = image.tokenCount
        let tensorBytes = 2 * heads * tokens * dim
        target = .allocate(byteCount: 2 * tensorBytes + 64, alignment: 64)
        target.initializeMemory(as: UInt8.self, repeating: 0)
        views = try [0, 1].map { [target] tensor in
            try MutableTensorView(
                bytes: target, offset: 32 + tensor * tensorBytes, elementType: .bfloat16,
                layout: .headsFirst(heads: heads, tokens: tokens, dim: dim))
        }
    }

    deinit {
        bytes.deallocate()
        target.deallocate()
    }

    func decode() throws {
        try image.decode(layer: 0, tokens: 0..<image.tokenCount, key: views[0], value: views[1], scratch: scratch)
    }
}
