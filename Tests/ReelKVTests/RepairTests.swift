import KVCodec
import LMDB
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A store with everything in it that a repair must know of, kept as files, so that each test damages a copy of its own.
enum RepairStore {
    static let model = ModelSpec.small(layers: 2, heads: 1, dim: 16)
    static let other = ModelSpec.small("other", layers: 1, heads: 1, dim: 32, type: .float32, fingerprint: 9)
    static let video = TokenSequence.video(.of(1), frames: 4, tokensPerFrame: 40)

    /// Each sequence: its name, its tokens, its model, the profile of its pages.
    static let sequences: [(name: SequenceName, tokens: TokenSequence, model: ModelSpec, profile: Profile)] = [
        (.video("v"), video, model, .exact),
        (.session("s0"), video[0..<70] + .text(20, seed: 1), model, .exact),
        (.session("s1"), video[0..<100] + .text(70, seed: 2), model, .exact),
        (SequenceName(.session, "a", tenant: "alice"), .text(150, seed: 3), model, .exact),
        (SequenceName(.session, "b", tenant: "bob"), .text(150, seed: 3), other, .exact),
        (SequenceName(.video, "w", tenant: "bob"), .video(.of(2), frames: 2), model, .exact),
    ]

    static let template: [String: [UInt8]] = {
        do { return try make() } catch { fatalError("the test's own store: \(error)") }
    }()

    private static func make() throws -> [String: [UInt8]] {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        do {
            let store = try makeStore(in: folder, model, pageTokens: 32)
            try store.addModel(other)
            for (name, tokens, model, profile) in sequences {
                let start = try store.longestPrefix(of: tokens, model: model.name, tenant: name.tenant)
                let writer = try store.writer(for: name, model: model.name, profile: profile, startingFrom: start)
                let cache = SyntheticCache(model, tokens)
                try cache.append(writer.tokenCount..<tokens.count, to: writer)
                try writer.finish(engineState: [1, 2, 3], provenance: ["from": "a test"])
            }
            let lossy = try store.writer(for: .session("lossy"), model: "small", profile: .named("int4"))
            try SyntheticCache(model, .text(70, seed: 4)).append(0..<70, to: lossy)
            try lossy.finish()
            let unfinished = try store.writer(for: .session("unfinished"), model: "small", profile: .exact)
            try SyntheticCache(model, .text(70, seed: 5)).append(0..<70, to: unfinished)
            try unfinished.flush()
            try expectSound(store)
        }
        let files = ["index.mdb", "identity", "volumes/00000001.mdb"]
        return try Dictionary(uniqueKeysWithValues: files.map { ($0, try readFile(path + "/" + $0)) })
    }

    /// A copy of the store.
    static func copy(to folder: TemporaryFolder) throws -> String {
        let path = folder.path + "/store\(TemporaryFolder.names(folder.path).count)"
        mkdir(path, 0o700)
        for (name, bytes) in template { try writeFile(path + "/" + name, with: bytes, makingFolder: true) }
        return path
    }

    /// How many tokens of each sequence are matched; every tensor of them must be what was stored.
    @discardableResult
    static func matched(_ store: Store, _ what: String = "") throws -> [Int] {
        try sequences.map { name, tokens, model, _ in
            guard try store.models().contains(model), try store.tenants().contains(name.tenant) else { return 0 }
            let prefix = try store.longestPrefix(of: tokens, model: model.name, tenant: name.tenant)
            let cache = SyntheticCache(model, tokens)
            for (layer, bytes) in try restored(store, prefix).enumerated() {
                #expect(bytes == cache.bytes(layer: layer, 0..<prefix.tokenCount), "\(name), layer \(layer), \(what)")
            }
            return prefix.tokenCount
        }
    }

    static let all = sequences.map(\.tokens.count)

    /// Changes a table behind the store's back: with checksums that are right, unless they are not `sealed`.
    static func change(
        _ path: String, _ table: String, file: String = "index.mdb", sealed: Bool = true,
        _ body: (inout [(key: [UInt8], value: [UInt8])]) -> Void
    ) throws {
        let environment = try Environment.open(at: path + "/" + file)
        let database = try environment.database(named: table, keys: RawBytes.self, values: RawBytes.self, sealed: sealed)
        try environment.write { transaction in
            var entries: [(key: [UInt8], value: [UInt8])] = []
            try database.forEach(in: .all, in: transaction) { key, value in
                entries.append((key, value))
                return .continue
            }
            body(&entries)
            try database.clear(in: transaction)
            for (key, value) in entries { try database.put(key, value, in: transaction) }
        }
    }
}

@Suite("Repairs", .timeLimit(.minutes(20)))
struct RepairTests {
    private typealias Entries = [(key: [UInt8], value: [UInt8])]
    private let folder = TemporaryFolder()

    /// Damages the index, and expects that it is found, that a dry run changes nothing, and that a repair leaves nothing wrong.
    private func repaired(
        _ table: String, finding kind: VerificationProblem.Kind, sourceLocation: SourceLocation = #_sourceLocation,
        _ damage: (inout Entries) -> Void
    ) throws -> (store: Store, report: RepairReport) {
        let path = try RepairStore.copy(to: folder)
        try RepairStore.change(path, table, damage)
        let store = try Store(opening: path)
        let found = try store.verify()
        #expect(found.counts[kind, default: 0] > 0, "\(table)", sourceLocation: sourceLocation)
        let dry = try store.repair(isDryRun: true)
        #expect(dry.left == found.problems && !dry.isSound, sourceLocation: sourceLocation)
        #expect(try store.verify().problems == found.problems, sourceLocation: sourceLocation)
        let report = try store.repair()
        #expect(report.left == [], "\(table)", sourceLocation: sourceLocation)
        #expect(report.changes == dry.changes, sourceLocation: sourceLocation)
        try expectSound(store, sourceLocation: sourceLocation)
        try RepairStore.matched(store, table)
        return (store, report)
    }

    @Test("A store is sound where a process was killed between writing a model's copy and the model itself")
    func identityAhead() throws {
        let path = try RepairStore.copy(to: folder)
        let former = try readFile(path + "/index.mdb")
        try { try Store(opening: path).addModel(.small("later", fingerprint: 9)) }()
        try writeFile(path + "/index.mdb", with: former)
        unlink(path + "/index.mdb-lock")
        let store = try Store(opening: path)
        try expectSound(store)
        try store.addModel(.small("another", fingerprint: 8))
        try expectSound(store)
    }

    @Test("A sound store is left as it is")
    func sound() throws {
        let path = try RepairStore.copy(to: folder)
        let store = try Store(opening: path)
        let before = try readFile(path + "/index.mdb")
        let report = try store.repair()
        #expect(report.isSound && report.changes.isEmpty && report.found.isSound)
        #expect(try readFile(path + "/index.mdb") == before)
        #expect(try RepairStore.matched(store) == RepairStore.all)
    }

    @Test(
        "Derived tables that are lost or wrong are derived anew, and nothing else changes",
        arguments: ["name", "child", "tip", "leaf", "account"])
    func derived(table: String) throws {
        let kind: VerificationProblem.Kind = table == "account" ? .tenant : .reference
        var damages: [(inout Entries) -> Void] = [
            { $0.removeAll() }, { $0.removeFirst() }, { $0[0].key[3] ^= 0x40 },
            { $0.append(($0[0].key.map { ~$0 }, $0[0].value)) },
        ]
        // what a tip or leaf has as its value says nothing
        if table != "tip", table != "leaf" { damages.append { $0[0].value = [1, 2] } }
        for damage in damages {
            let (store, report) = try repaired(table, finding: kind, damage)
            #expect(report.changes.isEmpty, "\(report.changes)")
            #expect(try RepairStore.matched(store) == RepairStore.all)
            #expect(try store.sequences(.video).count + store.sequences(.session).count == RepairStore.sequences.count + 1)
        }
    }

    @Test("Counts that are wrong are counted anew")
    func counts() throws {
        for offset in [92, 96, 108] {  // children, heads, pins
            let (store, report) = try repaired("node", finding: .reference) { $0[0].value[offset] ^= 1 }
            #expect(report.changes.isEmpty)
            #expect(try RepairStore.matched(store) == RepairStore.all)
        }
        for offset in [8, 16] {  // live bytes, live pages
            let (store, report) = try repaired("volume", finding: .volume) { $0[0].value[offset] ^= 1 }
            #expect(report.changes.isEmpty)
            #expect(try RepairStore.matched(store) == RepairStore.all)
        }
        let (store, report) = try repaired("store", finding: .store) { entries in
            for index in entries.indices where entries[index].key == Array("store".utf8) {
                entries[index].value.replaceSubrange(40..<56, with: [UInt8](repeating: 0, count: 16))
            }
        }
        #expect(report.changes.isEmpty)
        #expect(try RepairStore.matched(store) == RepairStore.all)
    }

    @Test("A page's record that is damaged or gone is made anew from its image", arguments: 0..<6)
    func node(seed: Int) throws {
        for damage in 0..<4 {
            let (store, report) = try repaired("node", finding: damage == 3 ? .reference : .node) { entries in
                let index = seed * (entries.count - 1) / 5
                switch damage {
                case 0: entries[index].value = Array(entries[index].value.dropLast())
                case 1: entries[index].value[entries[index].value.count - 1] ^= 1
                case 2: entries[index].value[130] ^= 1  // hash
                default: entries.remove(at: index)
                }
            }
            #expect(report.nodesRecovered == 1, "\(damage): \(report.changes)")
            let matched = try RepairStore.matched(store)
            #expect(matched == RepairStore.all, "\(damage) \(report.changes)")
            #expect(try store.sequences(.session).count == 5)
        }
    }

    @Test("What hangs on a page that is lost for good goes; a session is cut, a video dropped, and all of it is told")
    func lostPage() throws {
        let path = try RepairStore.copy(to: folder)
        var hash: [UInt8] = []
        // the page of tokens 32..<64 that the video and both sessions share
        try RepairStore.change(path, "node") { entries in
            let shared = entries.indices.first { entries[$0].value[64] == 32 && entries[$0].value[92] > 0 }
            hash = Array(entries[shared!].value[128..<160])
            entries.remove(at: shared!)
        }
        try Self.destroyImages(path, of: hash)
        let store = try Store(opening: path)
        let report = try store.repair()
        #expect(report.left == [])
        #expect(report.changes.contains { $0.kind == .node && $0.message.contains("dropped") })
        #expect(report.changes.contains { $0.kind == .head && $0.subject == "video/v" && $0.message.hasPrefix("dropped") })
        for name in ["s0", "s1"] {
            #expect(report.changes.contains { $0.subject == "session/\(name)" && $0.message.hasPrefix("cut to its first 32 of") })
            #expect(try store.prefix(of: .session(name)).tokenCount == 32)
        }
        try expectSound(store)
        #expect(try RepairStore.matched(store) == [32, 32, 32] + RepairStore.all[3...])
        // and both can be written again
        for (name, tokens, model, _) in RepairStore.sequences[0..<3] {
            try write(SyntheticCache(model, tokens), as: name, to: store)
        }
        #expect(try RepairStore.matched(store) == RepairStore.all)
        try expectSound(store)
    }

    /// Makes the images of a page unreadable.
    static func destroyImages(_ path: String, of hash: [UInt8]) throws {
        let file = path + "/volumes/00000001.mdb"
        var bytes = try readFile(file)
        for start in stride(from: 4096 + 16, to: bytes.count - 256, by: 4096)
        where Array(bytes[start + 96..<start + 128]) == hash { bytes[start + 70] ^= 1 }
        try writeFile(file, with: bytes)
    }

    @Test("Heads, states, uses and owners that are damaged or dangling")
    func others() throws {
        var (store, report) = try repaired("session", finding: .head) { $0[0].value = Array($0[0].value.dropLast()) }
        #expect(try store.sequences(.session).count == 4)
        #expect(try RepairStore.matched(store) == RepairStore.all)
        (store, report) = try repaired("state", finding: .reference) { $0.append(($0[0].key.map { ~$0 }, [1])) }
        (store, report) = try repaired("usage", finding: .reference) { $0.append(($0[0].key.map { ~$0 }, $0[0].value)) }
        (store, report) = try repaired("usage", finding: .reference) { $0[0].value = [1] }
        (store, report) = try repaired("tenant", finding: .tenant) { $0[0].value = [1] }
        #expect(try RepairStore.matched(store) == RepairStore.all)
        (store, report) = try repaired("model", finding: .model) { $0[0].value = Array($0[0].value.dropLast()) }
        #expect(try RepairStore.matched(store) == RepairStore.all)
        (store, report) = try repaired("tenant", finding: .identity) { $0.removeFirst() }
        #expect(try RepairStore.matched(store) == RepairStore.all)
        #expect(report.left.isEmpty)
    }

    @Test("A copy of the identities that is damaged or gone is written anew")
    func identity() throws {
        for damage in 0..<2 {
            let path = try RepairStore.copy(to: folder)
            if damage == 0 { unlink(path + "/identity") } else { try writeFile(path + "/identity", with: [1, 2, 3]) }
            let store = try Store(opening: path)
            #expect(try store.verify(depth: .index).problems.map(\.kind) == [.identity])
            #expect(try store.repair(depth: .index).isSound)
            #expect(try RepairStore.matched(store) == RepairStore.all)
            #expect(try readFile(path + "/identity").count == RepairStore.template["identity"]?.count)
        }
    }

    @Test("Damaged pages are quarantined, volumes that cannot be read are set aside")
    func pages() throws {
        var path = try RepairStore.copy(to: folder)
        let file = path + "/volumes/00000001.mdb"
        var bytes = try readFile(file)
        let magic: [UInt8] = [0x89, 0x52, 0x4B, 0x56, 0x50, 0x0D, 0x0A, 0x1A]
        let starts = stride(from: 16, to: bytes.count - 4096, by: 4096).filter { Array(bytes[$0..<$0 + 8]) == magic }
        bytes[starts[3] + 3000] ^= 1
        try writeFile(file, with: bytes)
        do {
            let store = try Store(opening: path)
            let report = try store.repair()
            #expect(report.found.problems.map(\.kind) == [.page] && report.changes.count == 1 && report.isSound)
            #expect(try store.verify().quarantined == 1)
            #expect(try RepairStore.matched(store).min() ?? 0 < 160)
        }
        path = try RepairStore.copy(to: folder)
        try writeFile(path + "/volumes/00000001.mdb", with: Array(repeating: 7, count: 100_000))
        let store = try Store(opening: path)
        #expect(try store.verify().counts[.volume] == 1)
        #expect(try store.repair().isSound)
        #expect(TemporaryFolder.names(path + "/volumes").contains { $0.hasPrefix("00000001.mdb.damaged-") })
        #expect(try store.verify().leftovers.contains { $0.message.contains("damaged volume") })
        #expect(try RepairStore.matched(store) == RepairStore.all.map { _ in 0 })
        for (name, tokens, model, _) in RepairStore.sequences where name.kind == .video {
            try write(SyntheticCache(model, tokens), as: name, to: store)
        }
        try expectSound(store)
    }

    @Test("A repair and a compaction exclude each other")
    func exclusive() throws {
        let path = try RepairStore.copy(to: folder)
        let store = try Store(opening: path)
        let file = open(path + "/compact.lock", O_RDWR | O_CREAT, 0o600)
        #expect(flock(file, LOCK_EX) == 0)
        #expect { try store.repair() } throws: { ($0 as? StoreError)?.code == .inUse }
        #expect(try store.repair(isDryRun: true).isSound)
        close(file)
        let reader = try Store(opening: path, access: .readOnly)
        #expect(reader.access == .readOnly)
        #expect { try reader.repair() } throws: { ($0 as? StoreError)?.code == .readOnly }
    }
}
