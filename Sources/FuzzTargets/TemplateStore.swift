import KVCodec
import ReelKV

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A small store, made once and copied for every run: each finds the same, whatever those before it have done.
///
/// It has the models `tiny` (2 layers of 1 head of 8 channels, bfloat16) and `wide`, a video `v` of 70 tokens with two frames, and a session
/// `s` that goes on from it with a tail and engine state. Pages have 32 tokens.
struct TemplateStore {
    static let shared = TemplateStore()

    static let model = "tiny"
    static let layers = 2
    static let heads = 1
    static let dim = 8
    /// Tokens of the video; the session has those and `turn` more.
    static let video = 70
    static let turn = 15

    private var folders: [String] = []
    private var files: [(name: String, bytes: [UInt8])] = []

    private init() {
        do {
            try ScratchFolder.shared.withFolder("template") { folder in
                try Self.make(folder + "/store")
                collect(folder + "/store", "")
            }
        } catch { fatalError("the store to start from cannot be made: \(error)") }
    }

    private mutating func collect(_ path: String, _ name: String) {
        for entry in ScratchFolder.names(path).sorted() where !entry.hasSuffix("-lock") {
            let (entryPath, entryName) = (path + "/" + entry, name + "/" + entry)
            if ScratchFolder.isFolder(entryPath) {
                folders.append(entryName)
                collect(entryPath, entryName)
            } else {
                files.append((entryName, ScratchFolder.read(entryPath)))
            }
        }
    }

    /// Runs `body` with a folder that has a copy in `store`.
    func withCopy(_ body: (_ folder: String) throws -> Void) throws {
        try ScratchFolder.shared.withFolder("run") { folder in
            let store = folder + "/store"
            mkdir(store, 0o700)
            for name in folders { mkdir(store + name, 0o700) }
            for file in files { file.bytes.withUnsafeBytes { ScratchFolder.write($0, to: store + file.name) } }
            try body(folder)
        }
    }

    // MARK: - Making it

    static func ids(_ range: Range<Int>) -> [Int32] { range.map { Int32($0 * $0 % 4999) } }

    private static func make(_ path: String) throws {
        var options = Store.Options()
        options.pageTokens = 32
        options.volumeBytesMax = 1 << 20
        let store = try Store.create(at: path, options: options)
        let rotary = RotaryParameters(theta: 10_000, dim: dim)
        func add(_ name: String, heads: Int) throws {
            let layer = LayerGeometry(keyValueHeads: heads, keyDim: dim, valueDim: dim, rotary: rotary)
            try store.addModel(
                ModelSpec(
                    name: name, fingerprint: Digest(hex: String(repeating: "5a", count: 32)) ?? .zero, elementType: .bfloat16,
                    layers: Array(repeating: layer, count: layers)))
        }
        try add(model, heads: heads)
        try add("wide", heads: 4)
        let writer = try store.writer(for: .video("v"), model: model, profile: .named("vidkv-1.5-1.58"))
        try append(0..<video, to: writer)
        try writer.finish(frames: [
            VideoFrame(firstToken: 3, tokenCount: 32, seconds: 0), VideoFrame(firstToken: 35, tokenCount: 32, seconds: 1),
        ])
        try store.fork(.video("v"), to: "s")
        let turn = try store.writer(for: .session("s"), model: model, profile: .exact)
        try append(video..<video + Self.turn, to: turn)
        try turn.finish(engineState: [1, 2, 3], provenance: ["from": "a fuzzer"])
    }

    private static func append(_ range: Range<Int>, to writer: SequenceWriter) throws {
        let layout = TensorLayout.headsFirst(heads: heads, tokens: range.count, dim: dim)
        let elements = (0..<layout.elementCount).map { UInt16(0x3F00 &+ UInt16(truncatingIfNeeded: $0 &* 40_503) >> 8) }
        try elements.withUnsafeBytes { bytes in
            let view = try TensorView(bytes: bytes, elementType: .bfloat16, layout: layout)
            try writer.append(
                TokenSequence(ids: ids(range)), layers: Array(repeating: LayerTokens(key: view, value: view), count: layers))
        }
    }
}
