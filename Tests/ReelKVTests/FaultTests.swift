import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Bad input, damage and limits")
struct FaultTests {
    private func code(_ body: () throws -> Void) -> StoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? StoreError)?.code
        }
    }

    @Test("Opening what is no store, and creating where something is")
    func opening() throws {
        let folder = TemporaryFolder()
        #expect(code { _ = try Store(opening: folder.path + "/nothing") } == .notAStore)
        _ = try Store.create(at: folder.path + "/store")
        #expect(code { _ = try Store.create(at: folder.path + "/store") } == .storeExists)
        #expect(code { _ = try Store.create(at: folder.path) } == .storeExists)
        try writeFile(folder.path + "/garbage/index.mdb", with: Array(repeating: 0x41, count: 8192), makingFolder: true)
        #expect(code { _ = try Store(opening: folder.path + "/garbage") } == .notAStore)
        #expect(code { _ = try Store(opening: folder.path + "/garbage", access: .readOnly) } == .notAStore)
    }

    @Test("Options out of range are refused")
    func options() {
        let folder = TemporaryFolder()
        for (tokens, bytes) in [(0, 1 << 28), (33, 1 << 28), (8192, 1 << 28), (256, 1000), (256, -1)] {
            var options = Store.Options()
            options.pageTokens = tokens
            options.volumeBytesMax = bytes
            #expect(code { _ = try Store.create(at: folder.path + "/store", options: options) } == .invalidArgument)
        }
    }

    @Test("A store opened read-only is not written")
    func readOnly() throws {
        let folder = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        let store = try Store(opening: folder.path + "/store", access: .readOnly)
        #expect(try store.prefix(of: .video("v")).tokenCount == 100)
        #expect(code { try store.addModel(.small("x")) } == .readOnly)
        #expect(code { try store.remove(.video("v")) } == .readOnly)
        #expect(code { _ = try store.writer(for: .session("s"), model: "small", profile: .exact) } == .readOnly)
    }

    @Test("Names, media spans and models that cannot be meant are refused")
    func arguments() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        for name in ["", "a\nb", String(repeating: "x", count: 201)] {
            #expect(code { _ = try store.writer(for: .video(name), model: "small", profile: .exact) } == .invalidArgument)
        }
        #expect(code { _ = try store.writer(for: .video("v"), model: "none", profile: .exact) } == .notFound)
        for name in ["", String(repeating: "x", count: 600)] {
            #expect(code { _ = try store.info(of: .video(name)) } == .notFound)
            #expect(code { _ = try store.info(of: .session("s", tenant: name)) } == .notFound)
            #expect(code { try store.remove(.video("v", tenant: name)) } == .notFound)
            #expect(code { _ = try store.model(named: name) } == .notFound)
        }
        #expect(code { _ = try TokenSequence(ids: [1, -1]) } == .invalidArgument)
        #expect(code { _ = try TokenSequence(ids: [1, 2], positions: [[1]]) } == .invalidArgument)
        let span = MediaSpan(digest: .of(1), firstToken: 1, count: 2)
        #expect(code { _ = try TokenSequence(ids: [1, -1], media: [span]) } == .invalidArgument)
        #expect(code { _ = try TokenSequence(ids: [1, -1, -1], media: [span, span]) } == .invalidArgument)
        #expect(code { try store.addModel(.small("empty", layers: 0)) } == .invalidArgument)
        #expect(code { try store.addModel(.small("huge", heads: 5000)) } == .invalidArgument)
        #expect(code { try store.addModel(.small("small", fingerprint: 1)) } == .alreadyExists)
        try store.addModel(.small())
    }

    @Test("A damaged page is never decoded: it is reported, counts as absent, and can be stored again")
    func damagedPage() throws {
        let folder = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(200, seed: 2))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        let page = try Store(opening: folder.path + "/store").pages(
            of: try Store(opening: folder.path + "/store").prefix(of: .video("v")))[1]
        try damage(folder.path + "/store/volumes/00000001.mdb", page: page, folder: folder)
        let store = try Store(opening: folder.path + "/store")
        #expect(try store.verify().problems.map(\.kind) == [.page])
        let prefix = try store.prefix(of: .video("v"))
        #expect(code { _ = try restored(store, prefix) } == .pageUnavailable)
        // from now on a match stops before it
        let match = try store.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == 64)
        #expect(match.stop == .quarantined)
        #expect(try restored(store, match)[0] == cache.bytes(layer: 0, 0..<64))
        #expect(try store.prefix(of: .video("v")).tokenCount == 64)
        let report = try store.verify()
        #expect(report.isSound && report.quarantined == 1)
        try write(cache, as: .video("v"), to: store)
        #expect(
            try restored(store, try store.longestPrefix(of: cache.tokens, model: "small"))[1] == cache.bytes(layer: 1, 0..<200))
        try expectSound(store)
    }

    /// Flips one bit in the middle of a page image, wherever the volume file keeps it.
    private func damage(_ path: String, page: StoredPage, folder: TemporaryFolder) throws {
        let store = try Store(opening: folder.path + "/store", access: .readOnly)
        let needle = try store.withImage(of: page) { _ in page.chainHash.bytes }
        var bytes = try readFile(path)
        let start = try #require(bytes.indices.dropLast(32).first { Array(bytes[$0..<$0 + 32]) == needle })
        bytes[start + page.imageBytes / 2] ^= 0x10
        try writeFile(path, with: bytes)
    }

    @Test("A volume file that is gone makes its pages absent, not wrong")
    func missingVolume() throws {
        let folder = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(100, seed: 3))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        unlink(folder.path + "/store/volumes/00000001.mdb")
        let store = try Store(opening: folder.path + "/store")
        #expect(try store.verify().problems.contains { $0.kind == .volume })
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == 100)
        #expect(code { _ = try restored(store, try store.prefix(of: .video("v"))) } == .pageUnavailable)
        // from now on none of its pages matches, and they can be stored again
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == 0)
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").stop == .quarantined)
        try write(cache, as: .video("v"), to: store)
        #expect(try restored(store, try store.prefix(of: .video("v")))[1] == cache.bytes(layer: 1, 0..<100))
        try expectSound(store)
    }

    @Test("A verification marks what it finds damaged, when it is asked to")
    func quarantiningVerification() throws {
        let folder = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(200, seed: 7))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        let page = try Store(opening: folder.path + "/store").pages(
            of: try Store(opening: folder.path + "/store").prefix(of: .video("v")))[2]
        try damage(folder.path + "/store/volumes/00000001.mdb", page: page, folder: folder)
        let store = try Store(opening: folder.path + "/store")
        #expect(try store.verify().problems.count == 1)
        #expect(try store.prefix(of: .video("v")).tokenCount == 200)
        #expect(try store.verify(quarantining: true).problems.count == 1)
        #expect(try store.prefix(of: .video("v")).tokenCount == 128)
        #expect(try store.verify().isSound)
        try write(cache, as: .video("v"), to: store)
        #expect(try store.prefix(of: .video("v")).tokenCount == 200)
        try expectSound(store)
    }

    @Test("A process may change its folder while it has a store open by a relative path")
    func relativePath() async throws {
        let folder = TemporaryFolder()
        await #expect(processExitsWith: .success) { [path = folder.path as String] in
            guard chdir(path) == 0 else { fatalError("no folder") }
            var options = Store.Options()
            options.pageTokens = 32
            let store = try Store.create(at: "a/store", options: options)
            guard chdir("/tmp") == 0 else { fatalError("no folder") }
            try store.addModel(.small())
            let cache = SyntheticCache(.small(), .text(100, seed: 3))
            try write(cache, as: .video("v"), to: store)
            guard try restored(store, try store.prefix(of: .video("v")))[1] == cache.bytes(layer: 1, 0..<100),
                try store.statistics().indexBytes > 0
            else { fatalError("other bytes") }
        }
    }

    @Test("Only the owner may read a store's files")
    func permissions() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), .text(100, seed: 3)), as: .video("v"), to: store)
        var status = stat()
        for name in ["", "/volumes"] {
            #expect(stat(folder.path + "/store" + name, &status) == 0 && status.st_mode & 0o777 == 0o700)
        }
        for name in ["/index.mdb", "/index.mdb-lock", "/volumes/00000001.mdb", "/volumes/00000001.mdb-lock"] {
            #expect(stat(folder.path + "/store" + name, &status) == 0 && status.st_mode & 0o777 == 0o600)
        }
    }

    @Test("A model whose pages no image can hold is refused")
    func hugeModel() throws {
        let store = try makeStore(in: TemporaryFolder())
        #expect(code { try store.addModel(.small("huge", layers: 1024, heads: 1024, dim: 1024)) } == .invalidArgument)
    }

    @Test("Too much provenance is refused, and the sequence stays as it was")
    func provenance() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
        #expect(code { try writer.finish(provenance: ["a": String(repeating: "b", count: 1 << 20)]) } == .invalidArgument)
        #expect(try store.sequences(.session).isEmpty)
    }

    @Test("Another store's volume in this one's place is noticed")
    func swappedVolume() throws {
        let folder = TemporaryFolder()
        let other = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(100, seed: 4))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        try write(SyntheticCache(.small(), .text(100, seed: 5)), as: .video("v"), to: try makeStore(in: other))
        try writeFile(
            folder.path + "/store/volumes/00000001.mdb", with: try readFile(other.path + "/store/volumes/00000001.mdb"))
        let store = try Store(opening: folder.path + "/store")
        #expect(throws: StoreError.self) { _ = try restored(store, try store.prefix(of: .video("v"))) }
        #expect(try !store.verify().isSound)
    }

    @Test("A page that fits no volume is refused with the way out")
    func tooLargeForVolume() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 16, heads: 8, dim: 128)
        let store = try makeStore(in: folder, model, pageTokens: 256, volumeBytesMax: 1 << 20)
        let cache = SyntheticCache(model, .text(256, seed: 6))
        #expect(code { try write(cache, as: .video("v"), to: store) } == .noSpace)
        #expect(try store.statistics().tokens == 0)
        try expectSound(store)
    }
}
