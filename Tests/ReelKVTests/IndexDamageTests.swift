import KVCodec
import LMDB
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Records of the index that say something else than was stored: an error or a miss, never a crash, a hang or other tensors.
@Suite("A damaged index", .timeLimit(.minutes(20)))
struct IndexDamageTests {
    private typealias Records = Database<RawBytes, RawBytes>

    private static let databases = [
        "store", "model", "tenant", "node", "name", "child", "video", "session", "building", "state", "volume",
    ]
    private static let model = ModelSpec.small(layers: 2, heads: 1, dim: 16, slidingWindows: [nil, 24])
    private static let video = TokenSequence.video(.of(1), frames: 2, tokensPerFrame: 40)

    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/store" }

    /// The files of a store with pages, borrowed and own tails, a branch inside a page, an unfinished write, and engine state.
    private static let template: [String: [UInt8]] = {
        do { return try makeTemplate() } catch { fatalError("the test's own store: \(error)") }
    }()

    private static func makeTemplate() throws -> [String: [UInt8]] {
        let folder = TemporaryFolder()
        do {
            let store = try makeStore(in: folder, model, pageTokens: 32)
            try write(SyntheticCache(model, video), as: .video("v"), to: store)
            for index in 0..<3 {
                let cache = SyntheticCache(model, video[0..<70 + index] + .text(20 + 10 * index, seed: UInt64(index)))
                let start = try store.longestPrefix(of: cache.tokens, model: "small")
                let writer = try store.writer(for: .session("s\(index)"), model: "small", profile: .exact, startingFrom: start)
                try cache.append(writer.tokenCount..<cache.tokens.count, to: writer)
                try writer.finish(engineState: [1, 2, 3], provenance: ["from": "a test"])
            }
            let cache = SyntheticCache(model, .text(100, seed: 9))
            let writer = try store.writer(for: .video("unfinished"), model: "small", profile: .exact)
            try cache.append(0..<100, to: writer)
            try writer.flush()
        }
        let files = ["index.mdb", "identity", "volumes/00000001.mdb"]
        return try Dictionary(uniqueKeysWithValues: files.map { ($0, try readFile(folder.path + "/store/" + $0)) })
    }

    private func restoreTemplate() throws {
        for name in ["/index.mdb-lock", "/volumes/00000001.mdb-lock"] { unlink(path + name) }
        mkdir(path, 0o700)
        for (name, bytes) in Self.template { try writeFile(path + "/" + name, with: bytes, makingFolder: true) }
    }

    /// Changes records of one database behind the store's back, by who knows how to make their checksums right.
    private func change(
        _ name: String, _ body: ([(key: [UInt8], value: [UInt8])]) -> [(key: [UInt8], value: [UInt8])]
    ) throws {
        let environment = try Environment.open(at: path + "/index.mdb")
        let database: Records = try environment.database(named: name, keys: RawBytes.self, values: RawBytes.self, sealed: true)
        try environment.write { transaction in
            var entries: [(key: [UInt8], value: [UInt8])] = []
            try database.forEach(in: .all, in: transaction) { key, value in
                entries.append((key, value))
                return .continue
            }
            for (key, value) in body(entries) { try database.put(key, value, in: transaction) }
        }
    }

    /// Uses the store in every way. Whatever comes back must be what was stored; errors must be the store's own.
    private func use(_ what: String) throws {
        func attempt(_ body: () throws -> Void) {
            do { try body() } catch {
                #expect(error is StoreError || error is CodecError, "\(what): \(error)")
            }
        }
        attempt {
            let store = try Store(opening: path)
            let queries = [Self.video] + (0..<3).map { Self.video[0..<70 + $0] + .text(20 + 10 * $0, seed: UInt64($0)) }
            for query in queries + [.text(100, seed: 9)] {
                attempt {
                    let match = try store.longestPrefix(of: query, model: "small")
                    try expectRight(store, match, query, what)
                }
            }
            attempt { _ = try store.statistics() }
            attempt { _ = try store.pages() }
            attempt { _ = try store.verify() }
            attempt { _ = try store.sequences(.session, building: true) }
            for name in [SequenceName.video("v"), .session("s0"), .session("s1"), .session("s2")] {
                attempt {
                    let prefix = try store.prefix(of: name)
                    try expectRight(store, prefix, try store.tokens(of: prefix), what)
                    _ = try store.pages(of: prefix)
                }
            }
            attempt { try store.truncate(session: "s1", to: 50) }
            attempt { try store.fork(.session("s2"), to: "f", count: 40) }
            attempt { _ = try store.compactionPlan(.to(1)) }
            attempt { _ = try store.compactStep(bytesMax: 1 << 20, deadShareMin: 0) }
            attempt { _ = try store.compact(.to(1)) }
            let more = SyntheticCache(Self.model, queries[1] + .text(60, seed: 5))
            attempt {
                // the head may be another session's whole: then the engine would see that its tokens are others
                let tokens = try store.tokens(of: try store.prefix(of: .session("s0")))
                if more.tokens[0..<tokens.count] == tokens { try write(more, as: .session("s0"), to: store) }
            }
            attempt {
                let prefix = try store.prefix(of: .session("s0"))
                try expectRight(store, prefix, try store.tokens(of: prefix), what)
            }
            for name in [SequenceName.video("v"), .session("s0"), .session("s1"), .video("unfinished")] {
                attempt { try store.remove(name) }
            }
            attempt { try store.removeTenant(named: "default") }
            attempt { try store.removeModel(named: "small", deletingSequences: true) }
        }
    }

    private func expectRight(_ store: Store, _ prefix: StoredPrefix, _ tokens: TokenSequence, _ what: String) throws {
        #expect(prefix.tokenCount <= tokens.count, "\(what)")
        guard prefix.model == Self.model else { return }  // another geometry: nothing to compare with
        let cache = SyntheticCache(Self.model, tokens)
        var firstTokens: [Int] = []
        let bytes = try restored(store, prefix) { firstTokens.append($0.firstToken) }
        for layer in bytes.indices where firstTokens[layer] == 0 {
            #expect(bytes[layer] == cache.bytes(layer: layer, 0..<prefix.tokenCount), "\(what)")
        }
    }

    @Test("Random bytes in random records", arguments: 0..<12)
    func randomBytes(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        for round in 0..<25 {
            try restoreTemplate()
            // nodes are the most and have the most to say
            let name = Bool.random(using: &random) ? "node" : Self.databases.randomElement(using: &random) ?? "node"
            var what = ""
            try change(name) { entries in
                guard let index = entries.indices.randomElement(using: &random) else { return [] }
                var entry = entries[index]
                what = Self.damage(&entry.value, &random, other: entries.randomElement(using: &random)?.value ?? [])
                what += ", record \(index) of \(name), seed \(seed), round \(round)"
                return [entry]
            }
            try use(what)
        }
    }

    private static func damage(_ value: inout [UInt8], _ random: inout SeededGenerator, other: [UInt8]) -> String {
        let at = Int.random(in: 0..<max(1, value.count), using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
            value = Array(value.prefix(at))
            return "cut to \(at)"
        case 1:
            value = other
            return "another's value"
        case 2:
            value = value.map { _ in UInt8.random(in: 0...255, using: &random) }
            return "all random"
        case 3:
            let bits = UInt8(1) << UInt8.random(in: 0..<8, using: &random)
            if at < value.count { value[at] ^= bits }
            return "a bit of byte \(at)"
        case 4:
            let end = min(value.count, at / 4 * 4 + 4)
            for index in at / 4 * 4..<end { value[index] = 0xFF }
            return "all ones from \(at / 4 * 4)"
        default:
            let end = min(value.count, at / 8 * 8 + 8)
            for index in at / 8 * 8..<end { value[index] = UInt8.random(in: 0...255, using: &random) }
            return "random from \(at / 8 * 8)"
        }
    }

    @Test("A node that claims to be its own parent")
    func circle() throws {
        try restoreTemplate()
        try change("node") { entries in
            entries.map { key, value in
                var value = value
                value.replaceSubrange(32..<64, with: value[128..<160])  // parent, hash
                return (key, value)
            }
        }
        try use("circle")
    }

    @Test("Pages are found by their hashes when the records before them lead elsewhere", arguments: 0..<8)
    func wrongNext(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let queries = [Self.video] + (0..<3).map { Self.video[0..<70 + $0] + .text(20 + 10 * $0, seed: UInt64($0)) }
        try restoreTemplate()
        let lengths = try queries.map { try Store(opening: path).longestPrefix(of: $0, model: "small").tokenCount }
        #expect(lengths == queries.map(\.count))
        try change("node") { entries in
            entries.map { key, value in
                var value = value
                value[160] = UInt8.random(in: 0...UInt8(entries.count + 1), using: &random)  // next
                return (key, value)
            }
        }
        let store = try Store(opening: path)
        for query in queries {
            let prefix = try store.longestPrefix(of: query, model: "small")
            #expect(prefix.tokenCount == query.count)
        }
        #expect(try store.verify().problems.isEmpty)
    }

    @Test("verify tells of every record it cannot read")
    func verifyTells() throws {
        for (name, kind) in [
            ("model", VerificationProblem.Kind.model), ("tenant", .tenant), ("node", .node), ("video", .head), ("session", .head),
            ("building", .head), ("volume", .volume), ("child", .reference), ("name", .reference),
        ] {
            try restoreTemplate()
            try change(name) { $0.prefix(1).map { ($0.key, Array($0.value.dropLast())) } }
            let report = try Store(opening: path).verify()
            #expect(report.problems.contains { $0.kind == kind }, "\(name)")
        }
    }

    @Test("A store whose making was interrupted is made anew, a store is not")
    func interruptedMaking() throws {
        try restoreTemplate()
        #expect { try Store.create(at: path) } throws: { ($0 as? StoreError)?.code == .storeExists }
        do {
            let environment = try Environment.open(at: path + "/index.mdb")
            let records: Records = try environment.database(named: "store", keys: RawBytes.self, values: RawBytes.self)
            try environment.write { try records.clear(in: $0) }
        }
        #expect { try Store(opening: path) } throws: { ($0 as? StoreError)?.code == .notAStore }
        // what pages lie in is not made anew
        #expect { try Store.create(at: path) } throws: { ($0 as? StoreError)?.code == .storeExists }
        unlink(path + "/volumes/00000001.mdb")
        #expect(try Store.create(at: path).statistics().models == 1)
        let empty = folder.path + "/empty"
        try writeFile(empty + "/index.mdb", with: [], makingFolder: true)
        #expect { try Store(opening: empty, access: .readOnly) } throws: { ($0 as? StoreError)?.code == .notAStore }
        #expect(try Store.create(at: empty).statistics().models == 0)
    }
}
