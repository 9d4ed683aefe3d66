import Dispatch
import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Processes killed at random moments. Each tells a journal what it is about to do and what it has done.
@Suite("Crashes")
struct CrashTests {
    /// What a sequence is to hold, or that it is to be gone: a line of the journal.
    private struct Step {
        var name: SequenceName
        var ids: [Int32]?

        var line: String { ([name.description] + (ids.map { $0.map(String.init) } ?? ["-"])).joined(separator: " ") }

        init(_ name: SequenceName, _ ids: [Int32]?) {
            self.name = name
            self.ids = ids
        }

        init?(line: Substring) {
            let words = line.split(separator: " ")
            guard let first = words.first, let name = SequenceName(String(first)) else { return nil }
            self.init(name, words.count == 2 && words[1] == "-" ? nil : words.dropFirst().compactMap { Int32($0) })
        }
    }

    private static let model = ModelSpec.small(layers: 2, heads: 2, dim: 64)
    private static let killCount = 40

    @Test(
        "Whenever a process is killed, what it acknowledged is there, bit for bit, and nothing half done",
        .timeLimit(.minutes(30)))
    func kills() async throws {
        let folder = TemporaryFolder()
        _ = try makeStore(in: folder, Self.model, pageTokens: 32, volumeBytesMax: 1 << 20)
        var contents: [SequenceName: [Int32]] = [:]
        var steps = 0
        for round in 0..<Self.killCount {
            let journal = folder.path + "/journal\(round)"
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = folder.path + "/store" as String, journal = journal as String, round = round as Int] in
                try CrashTests.work(path, journal: journal, seed: UInt64(round))
            }
            let store = try Store(opening: folder.path + "/store")
            steps += try settle(&contents, with: try lines(of: journal), in: store)
            try check(contents, in: store)
        }
        #expect(steps > 0)
        let store = try Store(opening: folder.path + "/store")
        for name in contents.keys { try store.remove(name) }
        for info in try store.sequences(.session, building: true) + store.sequences(.video, building: true) {
            try store.remove(info.name)
        }
        #expect(try store.statistics().tokens == 0)
        #expect(TemporaryFolder.names(folder.path + "/store/volumes").isEmpty)
        try expectSound(store)
    }

    // MARK: The process that is killed

    private static func work(_ path: String, journal: String, seed: UInt64) throws {
        var random = SeededGenerator(seed)
        let delay = UInt32.random(in: 0..<120_000, using: &random)
        DispatchQueue.global().async {
            usleep(delay)
            kill(getpid(), SIGKILL)
        }
        let file = open(journal, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        func note(_ text: String) {
            let bytes = Array((text + "\n").utf8)
            guard unistdWrite(file, bytes, bytes.count) == bytes.count, fsync(file) == 0 else { fatalError("no journal") }
        }
        let store = try Store(opening: path)
        while true {
            let name = SequenceName(Bool.random(using: &random) ? .session : .video, "n\(Int.random(in: 0..<4, using: &random))")
            let old =
                try (store.sequences(name.kind).contains { $0.name == name })
                ? store.tokens(of: try store.prefix(of: name)).ids : nil
            try act(on: name, holding: old, in: store, &random) { note("? " + $0.line) }
            note("=")
        }
    }

    private static func act(
        on name: SequenceName, holding old: [Int32]?, in store: Store, _ random: inout SeededGenerator,
        announce: (Step) -> Void
    ) throws {
        let action = Int.random(in: 0..<6, using: &random)
        if old != nil, action == 0 {
            announce(Step(name, nil))
            return try store.remove(name)
        }
        if let old, action == 1, name.kind == .session {
            let count = Int.random(in: 0...old.count, using: &random)
            announce(Step(name, Array(old[..<count])))
            return try store.truncate(session: name.name, to: count)
        }
        if let old, action == 2 {
            let target = SequenceName.session("fork\(Int.random(in: 0..<3, using: &random))")
            if try store.sequences(.session).contains(where: { $0.name == target }) {
                announce(Step(target, nil))
                return try store.remove(target)
            }
            announce(Step(target, old))
            return try store.fork(name, to: target.name)
        }
        // few different tokens, so that sequences share their beginnings
        let base = name.kind == .session ? old ?? [] : []
        let added = TokenSequence.text(Int.random(in: 1...150, using: &random), seed: random.next() % 4, vocabulary: 3)
        let tokens = TokenSequence.valid(base.count > 600 ? added.ids : base + added.ids)
        if base.count > 600 {
            announce(Step(name, nil))
            return try store.remove(name)
        }
        announce(Step(name, tokens.ids))
        let start = old == nil ? try store.longestPrefix(of: tokens, model: "small") : nil
        let writer = try store.writer(
            for: name, model: "small", profile: .exact, startingFrom: start, replacing: true)
        try SyntheticCache(model, tokens).append(writer.tokenCount..<tokens.count, to: writer, chunk: 40)
        try writer.finish()
    }

    // MARK: Looking at what it left

    private func lines(of journal: String) throws -> [Substring] {
        guard let file = fopen(journal, "r") else { return [] }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 8 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
    }

    /// Takes the acknowledged steps over; the last one may have happened or not, which the store tells.
    private func settle(
        _ contents: inout [SequenceName: [Int32]], with lines: [Substring], in store: Store
    ) throws -> Int {
        var pending: Step?
        var count = 0
        for line in lines {
            if line == "=", let step = pending {
                contents[step.name] = step.ids
                pending = nil
                count += 1
            } else {
                pending = Step(line: line.dropFirst(2))
            }
        }
        if let step = pending {
            let isThere = try store.sequences(step.name.kind).contains { $0.name == step.name }
            let found = isThere ? try store.tokens(of: try store.prefix(of: step.name)).ids : nil
            #expect(found == step.ids || found == contents[step.name], "\(step.name) is half done")
            contents[step.name] = found
        }
        return count
    }

    private func check(_ contents: [SequenceName: [Int32]], in store: Store) throws {
        try expectSound(store)
        let names = try (store.sequences(.session) + store.sequences(.video)).map(\.name)
        #expect(Set(names) == Set(contents.keys))
        for (name, ids) in contents {
            let cache = SyntheticCache(Self.model, .valid(ids))
            let prefix = try store.prefix(of: name)
            #expect(try store.tokens(of: prefix).ids == ids)
            #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == ids.count)
            for (layer, bytes) in try restored(store, prefix).enumerated() {
                #expect(bytes == cache.bytes(layer: layer, 0..<ids.count), "\(name) layer \(layer)")
            }
        }
    }
}

/// The system's `write`, which goes by the same name as a helper of these tests.
private func unistdWrite(_ file: Int32, _ bytes: [UInt8], _ count: Int) -> Int {
    #if canImport(Glibc)
        Glibc.write(file, bytes, count)
    #else
        Darwin.write(file, bytes, count)
    #endif
}
