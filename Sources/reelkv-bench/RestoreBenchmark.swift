import ArgumentParser
import KVCodec
import ReelKV
import Rendering
import Reports

/// A restore of a stored prefix into memory, beside a copy of as many bytes by as many threads.
struct RestoreBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Times restores of a 28-layer, 4-head, 128-dim prefix, and the time to its first layer.",
        discussion: """
            Memory is what the process has for itself (RssAnon) after the restores, beyond what it had before them with the \
            target allocated and written: what is mapped of the store's files is the page cache's.
            """)

    @Option(help: "Tokens of the prefix.") var tokens = 2_048
    @Option(help: "Restores to time; the median is printed.") var runs = 7
    @Option(help: "Only these profiles.") var profile = ["exact", "int8", "int4", "kivi-2", "vidkv-2-2", "vidkv-1.5-1.58"]
    @Option(help: "Type of the restored elements: f16, bf16 (what is stored) or f32.", transform: Self.elementType)
    var type = ElementType.bfloat16
    @Flag(help: "Open the store anew for each restore, out of the page cache.") var cold = false
    @Flag(help: "Store for an encrypted tenant.") var encrypted = false
    @Flag(help: "Print JSON.") var json = false

    @Sendable private static func elementType(_ name: String) throws -> ElementType {
        guard let type = ElementType(name: name) else { throw ValidationError("no element type '\(name)': f16, bf16 or f32") }
        return type
    }

    private static let key = EncryptionKey.random()

    private func openStore(_ path: String) throws -> Store {
        let store = try Store(opening: path)
        if encrypted { try store.unlock(tenant: Store.defaultTenant, with: Self.key) }
        return store
    }

    private struct Times {
        var whole: Double
        var first: Double
        var copy: Double
    }

    private struct Row: Encodable {
        var profile: String
        var elementType: String
        var tokens: Int
        var decodedBytes: Int
        var storedBytes: Int
        var restoreSeconds: Double
        var firstLayerSeconds: Double
        var memcpySeconds: Double
        var privateBytes: Int?
        var cold: ColdFiles.Way?

        enum CodingKeys: String, CodingKey {
            case profile, tokens, cold
            case elementType = "element_type"
            case decodedBytes = "decoded_bytes"
            case storedBytes = "stored_bytes"
            case restoreSeconds = "restore_seconds"
            case firstLayerSeconds = "first_layer_seconds"
            case memcpySeconds = "memcpy_seconds"
            case privateBytes = "private_bytes"
        }
    }

    func run() throws {
        let stream = SyntheticStream(chunk: 512)
        defer { stream.deallocate() }
        let elements = tokens * SyntheticStream.model.exactBytesPerToken / SyntheticStream.model.elementType.byteCount
        let bytes = elements * type.byteCount
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        target.initializeMemory(as: UInt8.self, repeating: 1)
        defer { target.deallocate() }
        let rows = try profile.map { try measure($0, stream, target) }
        if json { print(try JSONOutput.text(rows, pretty: true)) } else { show(rows, bytes: bytes) }
    }

    private func show(_ rows: [Row], bytes: Int) {
        var table = TextTable(
            .left("profile"), .right("restore"), .right("GB/s"), .right("of memcpy"), .right("first layer"), .right("memory"))
        for row in rows {
            table.append(
                row.profile, "\(rounded(row.restoreSeconds * 1e3)) ms", rounded(Double(bytes) / row.restoreSeconds / 1e9),
                rounded(row.memcpySeconds / row.restoreSeconds), "\(rounded(row.firstLayerSeconds * 1e3)) ms",
                row.privateBytes.map { "\(rounded(Double($0) / 1e6)) MB" } ?? "")
        }
        let state = cold ? "cold (\(rows.first?.cold?.rawValue ?? ""))" : "warm"
        let megabytes = "\(rounded(Double(bytes) / 1e6)) MB"
        print("\(tokens) tokens, \(megabytes) decoded to \(type.name.lowercased()), \(state), medians of \(runs):")
        print(table.text())
    }

    private func measure(_ name: String, _ stream: SyntheticStream, _ target: UnsafeMutableRawBufferPointer) throws -> Row {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let path = folder.path + "/store"
        try write(stream, to: path, profile: try .named(name))
        let before = privateResidentBytes()
        var row = Row(
            profile: name, elementType: type.name, tokens: tokens, decodedBytes: target.count, storedBytes: 0, restoreSeconds: 0,
            firstLayerSeconds: 0, memcpySeconds: 0)
        var times: [Times] = []
        var open: Store?
        for _ in 0..<runs {
            if cold {
                open = nil
                row.cold = ColdFiles.evict(under: path)
            }
            let store = try open ?? openStore(path)
            open = store
            times.append(try restore(try store.prefix(of: .video("v")), of: store, to: target))
            row.storedBytes = try store.statistics().storedBytes
        }
        row.privateBytes = privateResidentBytes().flatMap { after in before.map { max(0, after - $0) } }
        row.restoreSeconds = median(times.map(\.whole))
        row.firstLayerSeconds = median(times.map(\.first))
        row.memcpySeconds = median(times.map(\.copy))
        return row
    }

    private func write(_ stream: SyntheticStream, to path: String, profile: Profile) throws {
        let store = try Store.create(at: path)
        if encrypted { try store.createTenant(named: Store.defaultTenant, key: Self.key) }
        try store.addModel(SyntheticStream.model)
        try stream.write(tokens, to: store, as: .video("v"), profile: profile)
    }

    private func restore(_ prefix: StoredPrefix, of store: Store, to target: UnsafeMutableRawBufferPointer) throws -> Times {
        let clock = ContinuousClock()
        let start = clock.now
        var first: Duration?
        try store.restore(prefix) { layer in
            let tensorBytes = SyntheticStream.heads * tokens * SyntheticStream.dim * type.byteCount
            let layout = TensorLayout.headsFirst(heads: SyntheticStream.heads, tokens: tokens, dim: SyntheticStream.dim)
            let view = { (tensor: Int) in
                try MutableTensorView(
                    bytes: target, offset: (2 * layer + tensor) * tensorBytes, elementType: type, layout: layout)
            }
            return LayerDestination(key: try view(0), value: try view(1))
        } onLayer: { _ in
            first = first ?? clock.now - start
        }
        let whole = clock.now - start
        let copy = clock.measure { copyInParallel(target) }
        return Times(whole: whole.seconds, first: (first ?? whole).seconds, copy: copy.seconds)
    }
}
