import ArgumentParser
import KVCodec
import ReelKV
import Rendering

/// A warm restore of a stored prefix into memory, beside a copy of as many bytes by as many threads.
struct RestoreBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Times warm restores of a 28-layer, 4-head, 128-dim prefix, and the time to its first layer.")

    @Option(help: "Tokens of the prefix.") var tokens = 2_048
    @Option(help: "Restores to time; the median is printed.") var runs = 7
    @Option(help: "Only these profiles.") var profile = ["exact", "int8", "int4", "kivi-2", "vidkv-2-2", "vidkv-1.5-1.58"]

    func run() throws {
        let stream = SyntheticStream(chunk: 512)
        defer { stream.deallocate() }
        let bytes = tokens * SyntheticStream.model.exactBytesPerToken
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        target.initializeMemory(as: UInt8.self, repeating: 1)
        defer { target.deallocate() }
        var table = TextTable(
            .left("profile"), .right("restore"), .right("GB/s"), .right("of memcpy"), .right("first layer"))
        for name in profile {
            let folder = try TemporaryFolder()
            defer { folder.remove() }
            let store = try Store.create(at: folder.path + "/store")
            try store.addModel(SyntheticStream.model)
            try stream.write(tokens, to: store, as: .video("v"), profile: try .named(name))
            let prefix = try store.prefix(of: .video("v"))
            let times = try (0..<runs).map { _ in try measure(store, prefix, target) }
            let whole = median(times.map(\.whole))
            let copy = median(times.map(\.copy))
            table.append(
                name, "\(rounded(whole * 1e3)) ms", rounded(Double(bytes) / whole / 1e9), rounded(copy / whole),
                "\(rounded(median(times.map(\.first)) * 1e3)) ms")
        }
        print("\(tokens) tokens, \(rounded(Double(bytes) / 1e6)) MB decoded to bf16, warm, medians of \(runs):")
        print(table.text())
    }

    private func measure(
        _ store: Store, _ prefix: StoredPrefix, _ target: UnsafeMutableRawBufferPointer
    ) throws -> (whole: Double, first: Double, copy: Double) {
        let clock = ContinuousClock()
        let start = clock.now
        var first: Duration?
        try store.restore(prefix) { layer in
            let tensorBytes = SyntheticStream.heads * tokens * SyntheticStream.dim * 2
            let layout = TensorLayout.headsFirst(heads: SyntheticStream.heads, tokens: tokens, dim: SyntheticStream.dim)
            let view = { (tensor: Int) in
                try MutableTensorView(
                    bytes: target, offset: (2 * layer + tensor) * tensorBytes, elementType: .bfloat16, layout: layout)
            }
            return LayerDestination(key: try view(0), value: try view(1))
        } onLayer: { _ in
            first = first ?? clock.now - start
        }
        let whole = clock.now - start
        let copy = clock.measure { copyInParallel(target) }
        return (whole.seconds, (first ?? whole).seconds, copy.seconds)
    }
}
