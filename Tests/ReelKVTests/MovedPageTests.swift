import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Pages that are moved, re-encoded or deleted under a reader")
struct MovedPageTests {
    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/store" }
    /// About three pages to a volume of 1 MiB.
    private static let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)

    private func makeStore() throws -> Store {
        try ReelKVTests.makeStore(in: folder, Self.model, volumeBytesMax: 1 << 20)
    }

    private func code(_ body: () throws -> Void) -> StoreError? {
        do {
            try body()
            return nil
        } catch {
            return error as? StoreError
        }
    }

    private func expectRight(
        _ store: Store, _ prefix: StoredPrefix, _ cache: SyntheticCache, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for (layer, bytes) in try restored(store, prefix).enumerated() {
            #expect(bytes == cache.bytes(layer: layer, 0..<prefix.tokenCount), sourceLocation: sourceLocation)
        }
    }

    private func expectNothingLost(_ store: Store, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try expectSound(store, sourceLocation: sourceLocation)
        #expect(try store.pages().allSatisfy { !$0.isQuarantined }, sourceLocation: sourceLocation)
    }

    @Test("A prefix matched before its pages were moved is restored from where they lie now", arguments: [true, false])
    func moved(isSameProcess: Bool) async throws {
        let cache = SyntheticCache(Self.model, .text(550, seed: 1))
        var first: Store? = try makeStore()
        let (prefix, before) = try {
            let store = try #require(first)
            try write(cache, as: .video("v"), to: store)
            let prefix = try store.prefix(of: .video("v"))
            return (prefix, try store.pages(of: prefix))
        }()
        if isSameProcess {
            try first?.move(before)
        } else {
            first = nil  // what this process has open it would not miss
            await #expect(processExitsWith: .success) { [path = path as String] in
                let store = try Store(opening: path)
                try store.move(try store.pages())
            }
        }
        let store = try Store(opening: path)
        let after = try store.pages(of: prefix)
        #expect(zip(before, after).allSatisfy { $0.chainHash == $1.chainHash && $0.imageBytes == $1.imageBytes })
        #expect(zip(before, after).allSatisfy { ($0.volumeID, $0.pageID) != ($1.volumeID, $1.pageID) })
        #expect(!TemporaryFolder.names(path + "/volumes").contains("00000001.mdb"))
        try expectRight(store, prefix, cache)
        for page in before { try store.withImage(of: page) { #expect($0.identity.chainHash == page.chainHash) } }
        // read-only stores follow too
        try expectRight(try Store(opening: path, access: .readOnly), prefix, cache)
        // and a writer finds that all is there
        let writer = try store.writer(for: .video("w"), model: "small", profile: .exact)
        try cache.append(0..<550, to: writer)
        try writer.finish()
        #expect(writer.storedBytes == 0 && writer.reusedTokenCount == 550)
        try expectNothingLost(store)
    }

    @Test("What is moved, re-encoded or deleted while a restore runs is restored as it was matched")
    func underWay() throws {
        let cache = SyntheticCache(Self.model, .text(550, seed: 2))
        for access in [Store.Access.readWrite, .readOnly] {
            let store = try access == .readWrite ? makeStore() : Store(opening: path)
            try write(cache, as: .video("v"), to: store)
            let reader = try Store(opening: path, access: access)
            let prefix = try reader.prefix(of: .video("v"))
            let pages = try store.pages()
            let layers = try restored(reader, prefix, threads: 1) { layer in
                if layer.layer == 0 { try store.move(pages) }
                if layer.layer == 1 { try store.remove(.video("v")) }
            }
            #expect(layers == (0..<4).map { cache.bytes(layer: $0, 0..<550) })
            let error = code { _ = try restored(store, prefix) }
            #expect(error?.code == .pageUnavailable && error?.message.contains("deleted") == true)
            try expectNothingLost(store)
        }
    }

    @Test("A page that is only there with other errors is not served in place of what was matched")
    func reencoded() throws {
        let cache = SyntheticCache(Self.model, .text(512, seed: 3))
        let store = try makeStore()
        try write(cache, as: .video("v"), to: store)
        let exact = try store.prefix(of: .video("v"))
        try write(cache, as: .session("s"), to: store, profile: try .named("int8"))
        let pages = try store.pages(of: exact)
        #expect(try store.pages().count == 2 * pages.count)
        for page in pages { try store.dropEncoding(page) }
        for error in [code { _ = try restored(store, exact) }, code { _ = try store.pages(of: exact) }] {
            #expect(error?.code == .pageUnavailable && error?.message.contains("re-encoded") == true)
        }
        #expect(code { try store.withImage(of: pages[0]) { _ in } }?.message.contains("re-encoded") == true)
        try expectNothingLost(store)
        let match = try store.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == 512 && !match.isExact)
        #expect(try restored(store, match).count == 4)
        #expect(try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact).tokenCount == 0)
    }

    @Test("A writer goes on from pages that were moved after it was opened")
    func writer() throws {
        let cache = SyntheticCache(Self.model, .text(700, seed: 4))
        let store = try makeStore()
        let first = SyntheticCache(Self.model, cache.tokens[0..<430])
        try write(first, as: .session("s"), to: store)
        let second = SyntheticCache(Self.model, cache.tokens[0..<440])
        try write(second, as: .session("s"), to: store)
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
        try store.move(try store.pages())
        try store.move(try store.pages())
        try cache.append(440..<700, to: writer)
        try writer.finish()
        try expectRight(store, try store.prefix(of: .session("s")), cache)
        try expectNothingLost(store)
    }

    @Test("Processes restore and verify while another moves every page again and again", .timeLimit(.minutes(20)))
    func processes() async throws {
        let caches = (0..<3).map { SyntheticCache(Self.model, .text(300, seed: UInt64(10 + $0))) }
        let store = try makeStore()
        for (index, cache) in caches.enumerated() { try write(cache, as: .video("v\(index)"), to: store) }
        let prefixes = try (0..<3).map { try store.prefix(of: .video("v\($0)")) }
        let done = folder.path + "/done"
        async let mover = #expect(processExitsWith: .success) { [path = path as String, done = done as String] in
            let store = try Store(opening: path)
            for _ in 0..<40 { try store.move(try store.pages()) }
            fclose(fopen(done, "w"))
        }
        async let verifier = #expect(processExitsWith: .success) { [path = path as String, done = done as String] in
            let store = try Store(opening: path)
            repeat {
                let report = try store.verify(quarantining: true)
                guard report.isSound && report.quarantined == 0 else { fatalError("\(report)") }
            } while access(done, F_OK) != 0
        }
        var restores = 0
        repeat {
            for (prefix, cache) in zip(prefixes, caches) { try expectRight(store, prefix, cache) }
            restores += 1
            // the children's ends are waited for on this thread too
            try await Task.sleep(for: .milliseconds(1))
        } while access(done, F_OK) != 0
        _ = await (mover, verifier)
        #expect(restores > 0)
        for (prefix, cache) in zip(prefixes, caches) { try expectRight(store, prefix, cache) }
        try expectNothingLost(store)
    }

    @Test("Random moves change nothing for prefixes matched at any time before", arguments: 0..<3)
    func random(seed: UInt64) throws {
        var random = SeededGenerator(seed)
        let model = ModelSpec.small(layers: 2, heads: 4, dim: 64)
        let store = try ReelKVTests.makeStore(in: folder, model, pageTokens: 32, volumeBytesMax: 1 << 20)
        var known: [(prefix: StoredPrefix, cache: SyntheticCache)] = []
        var tokens = TokenSequence.valid([])
        for step in 0..<40 {
            if step % 3 == 0 {
                let name = SequenceName.session("s\(step)")
                tokens = tokens[0..<Int.random(in: 0...tokens.count, using: &random)] + .text(70, seed: random.next())
                let cache = SyntheticCache(model, tokens)
                try write(cache, as: name, to: store, startingFrom: try store.longestPrefix(of: tokens, model: "small"))
                known.append((try store.prefix(of: name), cache))
            }
            let pages = try store.pages()
            try store.move(pages.filter { _ in Bool.random(using: &random) })
            // pages that have been moved are passed over
            try store.move(Array(pages.prefix(1)))
            let (prefix, cache) = known[Int.random(in: known.indices, using: &random)]
            try expectRight(store, prefix, cache)
        }
        try expectNothingLost(store)
    }

    @Test("A volume whose file is lost takes only its own pages along, also when others were moved out of it before")
    func lostVolume() throws {
        let cache = SyntheticCache(Self.model, .text(512, seed: 5))
        let store = try makeStore()
        try write(cache, as: .video("v"), to: store)
        let prefix = try store.prefix(of: .video("v"))
        let inFirst = try store.pages(of: prefix).filter { $0.volumeID == 1 }
        #expect(inFirst.count > 1)
        try store.move([inFirst[0]])
        unlink(path + "/volumes/00000001.mdb")
        // this process has the file open still and would not miss it
        let copy = TemporaryFolder()
        try copyStore(to: copy.path + "/store")
        let other = try Store(opening: copy.path + "/store")
        #expect(code { _ = try restored(other, try other.prefix(of: .video("v"))) }?.code == .pageUnavailable)
        let match = try other.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == 64 && match.stop == .quarantined)
        try expectRight(other, match, cache)
        let quarantined = try other.pages().filter(\.isQuarantined).map(\.chainHash)
        #expect(Set(quarantined) == Set(inFirst.dropFirst().map(\.chainHash)))
    }

    private func copyStore(to target: String) throws {
        mkdir(target, 0o700)
        try writeFile(target + "/index.mdb", with: try readFile(path + "/index.mdb"))
        for name in TemporaryFolder.names(path + "/volumes") where name.hasSuffix(".mdb") {
            try writeFile(
                target + "/volumes/" + name, with: try readFile(path + "/volumes/" + name), makingFolder: true)
        }
    }

    #if os(Linux)
        @Test("A reader that lives long gives the space of removed volumes back")
        func space() async throws {
            let cache = SyntheticCache(Self.model, .text(512, seed: 6))
            try write(cache, as: .video("v"), to: try makeStore())
            let store = try Store(opening: path)
            let prefix = try store.prefix(of: .video("v"))
            try expectRight(store, prefix, cache)
            #expect(try mappedVolumes().contains { $0.contains("00000001.mdb") })
            await #expect(processExitsWith: .success) { [path = path as String] in
                let store = try Store(opening: path)
                try store.move(try store.pages())
            }
            #expect(try mappedVolumes().contains { $0.contains("(deleted)") })
            // no new volume has to be opened for it; it looks once a second at most
            for _ in 0..<100 where try mappedVolumes().contains(where: { $0.contains("(deleted)") }) {
                _ = try restored(store, prefix, layers: 0..<1, tokens: 500..<512)
                usleep(50_000)
            }
            #expect(try !mappedVolumes().contains { $0.contains("(deleted)") })
            try expectRight(store, prefix, cache)
        }

        private func mappedVolumes() throws -> [Substring] {
            String(decoding: try readFile("/proc/self/maps"), as: UTF8.self).split(separator: "\n")
                .filter { $0.contains(folder.path + "/store/volumes/") }
        }
    #endif
}
