import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Single flipped bits anywhere in a store's files: the right answer, a miss or a clear error; never other tensors, never the end of the
/// process.
///
/// `REELKV_FLIPS` is how many bits are flipped, if not 400. The number of a flip decides where it is.
@Suite("Flipped bits", .timeLimit(.minutes(60)))
struct BitFlipTests {
    private static let flips = getenv("REELKV_FLIPS").flatMap { Int(String(cString: $0)) } ?? 400
    /// Flips that one process tries.
    private static let batch = 100
    private static let model = ModelSpec.small(layers: 2, heads: 1, dim: 16, slidingWindows: [nil, 24])
    private static let video = TokenSequence.video(.of(1), frames: 2, tokensPerFrame: 40)
    private static let engineState: [UInt8] = Array(0..<100)
    private static let frames = (0..<2).map { VideoFrame(firstToken: 3 + 40 * $0, tokenCount: 40, seconds: Double($0)) }
    private static let files = ["index.mdb", "volumes/00000001.mdb"]

    private static func session(_ index: Int) -> TokenSequence {
        video[0..<70 + index] + .text(20 + 10 * index, seed: UInt64(index))
    }

    private static func make(in folder: TemporaryFolder) throws {
        let store = try makeStore(in: folder, model, pageTokens: 32)
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        try SyntheticCache(model, video).append(0..<video.count, to: writer)
        try writer.finish(frames: frames)
        for index in 0..<3 {
            let cache = SyntheticCache(model, session(index))
            let start = try store.longestPrefix(of: cache.tokens, model: "small")
            let writer = try store.writer(for: .session("s\(index)"), model: "small", profile: .exact, startingFrom: start)
            try cache.append(writer.tokenCount..<cache.tokens.count, to: writer)
            try writer.finish(engineState: engineState, provenance: ["from": "a test"])
        }
    }

    // MARK: - Using it

    /// Uses the store in every way. What comes back must be what was stored; else an error of the store's own.
    private static func use(_ path: String, _ what: String) {
        func attempt(_ body: () throws -> Void) {
            do { try body() } catch {
                guard error is StoreError || error is CodecError else { fatalError("\(what): \(error)") }
            }
        }
        attempt {
            let store = try Store(opening: path)
            for tokens in [video] + (0..<3).map(session) {
                attempt { try check(store, try store.longestPrefix(of: tokens, model: "small"), tokens, what) }
            }
            for (name, tokens) in [(SequenceName.video("v"), video)] + (0..<3).map({ (.session("s\($0)"), session($0)) }) {
                attempt { try check(store, try store.prefix(of: name), tokens, what) }
                attempt { try check(try store.info(of: name), name, what) }
            }
            attempt { _ = try store.statistics() }
            attempt { _ = try store.pages() }
            attempt { _ = try store.verify(quarantining: true) }
            attempt { _ = try store.compact(.to(1)) }
            let more = SyntheticCache(model, session(1) + .text(60, seed: 5))
            attempt { try write(more, as: .session("s1"), to: store) }
            attempt { try check(store, try store.prefix(of: .session("s1")), more.tokens, what) }
            attempt { try store.fork(.session("s2"), to: "f", count: 40) }
            attempt { try store.truncate(session: "s1", to: 50) }
            attempt { try store.remove(.video("v")) }
        }
    }

    /// What a match gives back is what was stored for these tokens.
    private static func check(_ store: Store, _ prefix: StoredPrefix, _ tokens: TokenSequence, _ what: String) throws {
        // a session that a write has failed to make longer is as it was
        guard prefix.tokenCount <= tokens.count, prefix.model == model else { fatalError("\(what): another prefix") }
        if let state = prefix.engineState, state != engineState { fatalError("\(what): another engine state") }
        guard try store.tokens(of: prefix) == tokens[0..<prefix.tokenCount] else { fatalError("\(what): other tokens") }
        let cache = SyntheticCache(model, tokens)
        var firstTokens: [Int] = []
        let bytes = try restored(store, prefix) { firstTokens.append($0.firstToken) }
        for layer in bytes.indices where firstTokens[layer] == 0 {
            guard bytes[layer] == cache.bytes(layer: layer, 0..<prefix.tokenCount) else { fatalError("\(what): other tensors") }
        }
    }

    private static func check(_ info: SequenceInfo, _ name: SequenceName, _ what: String) throws {
        guard info.name == name, info.frames == (name.kind == .video ? frames : []) else { fatalError("\(what): other frames") }
        guard name.kind == .video || info.provenance == ["from": "a test"] else { fatalError("\(what): another provenance") }
    }

    // MARK: - Flipping

    @Test("Every flipped bit is found or harmless")
    func flippedBits() async throws {
        let folder = TemporaryFolder()
        try Self.make(in: folder)
        for first in stride(from: 0, to: Self.flips, by: Self.batch) {
            let count = min(Self.batch, Self.flips - first)
            let log = folder.path + "/flip\(first)"
            await #expect(processExitsWith: .success, "one of \(count) flips from \(first): \(Self.text(log))") {
                [source = folder.path as String, log = log as String, first = first as Int, count = count as Int] in
                let copy = TemporaryFolder()
                let whole = try BitFlipTests.files.map { (name: $0, bytes: try readFile(source + "/store/" + $0)) }
                for flip in first..<first + count {
                    let file = flip % 2
                    var bytes = whole[file].bytes
                    var random = SeededGenerator(UInt64(flip))
                    let place = Int.random(in: 0..<bytes.count, using: &random)
                    bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                    let what = "flip \(flip), in byte \(place) of \(whole[file].name)"
                    try writeFile(log, with: Array(what.utf8))
                    let path = copy.path + "/store\(flip)"
                    mkdir(path, 0o700)
                    for (index, entry) in whole.enumerated() {
                        try writeFile(path + "/" + entry.name, with: index == file ? bytes : entry.bytes, makingFolder: true)
                    }
                    BitFlipTests.use(path, what)
                    TemporaryFolder.removeTree(path)
                }
            }
        }
    }

    private static func text(_ path: String) -> String { (try? readFile(path)).map { String(decoding: $0, as: UTF8.self) } ?? "" }

    // MARK: - Files that change while they are open

    @Test("A file that is cut short while it is open is an error, not the end of the process", arguments: files, [0, 1, 3])
    func cutWhileOpen(file: String, pages: Int) throws {
        let folder = TemporaryFolder()
        try Self.make(in: folder)
        let path = folder.path + "/store"
        let store = try Store(opening: path)
        let prefix = try store.longestPrefix(of: Self.video, model: "small")
        try Self.check(store, prefix, Self.video, "before")
        #expect(truncate(path + "/" + file, off_t(pages * 4096)) == 0)
        #expect(throws: StoreError.self) {
            if file == "index.mdb" { _ = try store.prefix(of: .session("s0")) } else { _ = try restored(store, prefix) }
        }
        Self.use(path, "a cut \(file)")
    }
}
