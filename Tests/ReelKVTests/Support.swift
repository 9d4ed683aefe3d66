import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A folder that is gone when the test is.
final class TemporaryFolder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/reelkv-test-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/tmp"
    }

    deinit {
        if path != "/tmp" { Self.removeTree(path) }
    }

    static func names(_ path: String) -> [String] {
        guard let folder = opendir(path) else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func removeTree(_ path: String) {
        for name in names(path) { removeTree(path + "/" + name) }
        remove(path)
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers on every run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

extension ModelSpec {
    /// A model small enough for many pages a second.
    static func small(
        _ name: String = "small", layers: Int = 2, heads: Int = 2, dim: Int = 32, type: ElementType = .bfloat16,
        fingerprint: UInt8 = 7, slidingWindows: [Int?]? = nil
    ) -> ModelSpec {
        ModelSpec(
            name: name, fingerprint: Digest(bytes: Array(repeating: fingerprint, count: 32))!, elementType: type,
            layers: (0..<layers).map { layer in
                LayerGeometry(
                    keyValueHeads: heads, keyDim: dim, valueDim: dim, slidingWindow: slidingWindows?[layer],
                    rotary: RotaryParameters(theta: 10_000, dim: dim))
            })
    }
}

/// Tokens with the tensors that a deterministic "model" computes from them: as with a real one, a token's keys and values depend
/// on all tokens up to it and on nothing else.
final class SyntheticCache: @unchecked Sendable {  // never changed once made
    let model: ModelSpec
    let tokens: TokenSequence
    private let memory: [(key: UnsafeMutableRawBufferPointer, value: UnsafeMutableRawBufferPointer)]

    init(_ model: ModelSpec, _ tokens: TokenSequence) {
        self.model = model
        self.tokens = tokens
        var history: UInt64 = 1
        let states = (0..<tokens.count).map { index in
            let span = tokens.media.first { $0.range.contains(index) }
            let identity =
                span.map { $0.digest.hashSeed &+ UInt64($0.mediaOffset + index - $0.firstToken) }
                ?? UInt64(bitPattern: Int64(tokens.ids[index]))
            history = SeededGenerator.mix(history ^ SeededGenerator.mix(identity &+ 1))
            return history
        }
        memory = model.layers.enumerated().map { layer, geometry in
            (
                Self.fill(states, geometry.keyValueHeads, geometry.keyDim, model.elementType, salt: UInt64(2 * layer)),
                Self.fill(states, geometry.keyValueHeads, geometry.valueDim, model.elementType, salt: UInt64(2 * layer + 1))
            )
        }
    }

    deinit {
        for (key, value) in memory {
            key.deallocate()
            value.deallocate()
        }
    }

    private static func fill(
        _ states: [UInt64], _ heads: Int, _ dim: Int, _ type: ElementType, salt: UInt64
    ) -> UnsafeMutableRawBufferPointer {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(1, heads * states.count * dim * type.byteCount), alignment: 64)
        var offset = 0
        for head in 0..<heads {
            for state in states {
                var random = SeededGenerator(state ^ SeededGenerator.mix(salt << 32 | UInt64(head)))
                for channel in 0..<dim {
                    // channels of different offset and scale, as keys have them
                    let noise = Float(Int64(truncatingIfNeeded: random.next() >> 40) - (1 << 23)) / Float(1 << 23)
                    let value = Float(channel % 5) - 2 + noise * Float(1 + channel % 7) * 0.25
                    switch type {
                    case .float32: memory.storeBytes(of: value, toByteOffset: offset, as: Float.self)
                    case .bfloat16:
                        memory.storeBytes(
                            of: UInt16(truncatingIfNeeded: value.bitPattern >> 16), toByteOffset: offset, as: UInt16.self)
                    case .float16:
                        memory.storeBytes(
                            of: UInt16(truncatingIfNeeded: random.next()) & 0x3BFF, toByteOffset: offset, as: UInt16.self)
                    }
                    offset += type.byteCount
                }
            }
        }
        return memory
    }

    /// The tensors of `range`, as an engine would hand them over.
    func layers(_ range: Range<Int>) throws -> [LayerTokens] {
        try zip(model.layers, memory).map { geometry, memory in
            let layout = { (dim: Int) in
                TensorLayout.headsFirst(heads: geometry.keyValueHeads, tokens: self.tokens.count, dim: dim)
            }
            let key = try TensorView(
                bytes: UnsafeRawBufferPointer(memory.key), elementType: model.elementType, layout: layout(geometry.keyDim))
            let value = try TensorView(
                bytes: UnsafeRawBufferPointer(memory.value), elementType: model.elementType,
                layout: layout(geometry.valueDim))
            return LayerTokens(key: try key.tokens(range), value: try value.tokens(range))
        }
    }

    /// One layer's bytes of `range`, keys then values, each `[heads, tokens, dim]`.
    func bytes(layer: Int, _ range: Range<Int>) -> [UInt8] {
        let geometry = model.layers[layer]
        return [(memory[layer].key, geometry.keyDim), (memory[layer].value, geometry.valueDim)].flatMap { memory, dim in
            (0..<geometry.keyValueHeads).flatMap { head in
                let row = dim * model.elementType.byteCount
                let start = head * tokens.count * row
                return Array(memory[(start + range.lowerBound * row)..<(start + range.upperBound * row)])
            }
        }
    }

    /// Appends `range` to a writer, in chunks of `chunk` tokens.
    func append(_ range: Range<Int>, to writer: SequenceWriter, chunk: Int = .max) throws {
        var start = range.lowerBound
        while start < range.upperBound {
            let end = min(range.upperBound, start + min(chunk, range.count))
            try writer.append(tokens[start..<end], layers: try layers(start..<end))
            start = end
        }
    }
}

extension Digest {
    fileprivate var hashSeed: UInt64 { bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }

    static func of(_ byte: UInt8) -> Digest { Digest(bytes: Array(repeating: byte, count: 32))! }
}

extension TokenSequence {
    /// A sequence that the test knows to be well formed.
    static func valid(_ ids: [Int32], media: [MediaSpan] = []) -> TokenSequence {
        do { return try TokenSequence(ids: ids, media: media) } catch { fatalError("the test's own tokens: \(error)") }
    }

    /// `count` random text tokens.
    static func text(_ count: Int, seed: UInt64, vocabulary: Int32 = 50_000) -> TokenSequence {
        var random = SeededGenerator(seed)
        return .valid((0..<count).map { _ in Int32.random(in: 0..<vocabulary, using: &random) })
    }

    /// A few text tokens, then `frames` frames of `tokensPerFrame` placeholders of one video.
    static func video(_ digest: Digest, frames: Int, tokensPerFrame: Int = 64, textTokens: Int = 3) -> TokenSequence {
        let count = frames * tokensPerFrame
        return .valid(
            Array(0..<Int32(textTokens)) + Array(repeating: -1, count: count),
            media: [MediaSpan(digest: digest, firstToken: textTokens, count: count)])
    }

    static func + (left: TokenSequence, right: TokenSequence) -> TokenSequence {
        .valid(
            left.ids + right.ids,
            media: left.media
                + right.media.map {
                    MediaSpan(
                        digest: $0.digest, firstToken: $0.firstToken + left.count, count: $0.count,
                        mediaOffset: $0.mediaOffset)
                })
    }
}

/// Restores tensors of a prefix into fresh memory, in the model's type: per layer, keys then values.
func restored(
    _ store: Store, _ prefix: StoredPrefix, layers: Range<Int>? = nil, tokens: Range<Int>? = nil, threads: Int? = nil,
    onLayer: ((RestoredLayer) throws -> Void)? = nil
) throws -> [[UInt8]] {
    let tokens = tokens ?? 0..<prefix.tokenCount
    let layers = layers ?? 0..<prefix.model.layers.count
    let size = prefix.model.elementType.byteCount
    var memory: [UnsafeMutableRawBufferPointer] = []
    defer { memory.forEach { $0.deallocate() } }
    try store.restore(
        prefix, layers: layers, tokens: tokens, threads: threads,
        into: { layer in
            let geometry = prefix.model.layers[layer]
            let rows = geometry.keyValueHeads * tokens.count
            let bytes = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(1, rows * (geometry.keyDim + geometry.valueDim) * size), alignment: 64)
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
            memory.append(bytes)
            let layout = { TensorLayout.headsFirst(heads: geometry.keyValueHeads, tokens: tokens.count, dim: $0) }
            return LayerDestination(
                key: try MutableTensorView(bytes: bytes, elementType: prefix.model.elementType, layout: layout(geometry.keyDim)),
                value: try MutableTensorView(
                    bytes: bytes, offset: rows * geometry.keyDim * size, elementType: prefix.model.elementType,
                    layout: layout(geometry.valueDim)))
        }, onLayer: onLayer)
    return zip(layers, memory).map { layer, bytes in
        let geometry = prefix.model.layers[layer]
        return Array(bytes.prefix(geometry.elementsPerToken * tokens.count * size))
    }
}

/// A new store with one model.
func makeStore(
    in folder: TemporaryFolder, _ model: ModelSpec = .small(), pageTokens: Int = 64, volumeBytesMax: Int = 64 << 20
) throws -> Store {
    var options = Store.Options()
    options.pageTokens = pageTokens
    options.volumeBytesMax = volumeBytesMax
    let store = try Store.create(at: folder.path + "/store", options: options)
    try store.addModel(model)
    return store
}

/// Writes a whole sequence under a name.
func write(
    _ cache: SyntheticCache, as name: SequenceName, to store: Store, profile: Profile = .exact, chunk: Int = .max,
    startingFrom start: StoredPrefix? = nil
) throws {
    let writer = try store.writer(for: name, model: cache.model.name, profile: profile, startingFrom: start)
    try cache.append(writer.tokenCount..<cache.tokens.count, to: writer, chunk: chunk)
    try writer.finish()
}

/// The store's own check, which must find nothing.
func expectSound(_ store: Store, sourceLocation: SourceLocation = #_sourceLocation) throws {
    let report = try store.verify()
    #expect(report.problems.map { "\($0.kind) \($0.subject): \($0.message)" } == [], sourceLocation: sourceLocation)
}

// MARK: - Files

func readFile(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r") as UnsafeMutablePointer<FILE>?)
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
    return bytes
}

func writeFile(_ path: String, with bytes: [UInt8], makingFolder: Bool = false) throws {
    if makingFolder, let slash = path.lastIndex(of: "/") { mkdir(String(path[..<slash]), 0o700) }
    let file = try #require(fopen(path, "w") as UnsafeMutablePointer<FILE>?)
    defer { fclose(file) }
    #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
}
