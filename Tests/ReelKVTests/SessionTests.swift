import KVCodec
import ReelKV
import Testing

@Suite("Sessions")
struct SessionTests {
    let video = TokenSequence.video(.of(3), frames: 4)

    private func turns(_ seeds: [UInt64], of count: Int) -> TokenSequence {
        seeds.reduce(video) { $0 + .text(count, seed: $1) }
    }

    @Test("Two sessions on one video store its pages once")
    func sharing() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), video), as: .video("v"), to: store)
        let alone = try store.statistics()
        for seed in [UInt64(21), 22] {
            let cache = SyntheticCache(.small(), video + .text(40, seed: seed))
            let match = try store.longestPrefix(of: cache.tokens, model: "small")
            #expect(match.tokenCount == video.count)
            try write(cache, as: .session("s\(seed)"), to: store, startingFrom: match)
        }
        let all = try store.statistics()
        // the tail of 3 tokens and the 40 of the turn make a piece of 40 each: no page is stored twice
        #expect(all.tokens == alone.tokens + 2 * 40)
        try expectSound(store)
    }

    @Test("Turns are appended across restarts; the tail is exact and pages fill from it", arguments: ["exact", "vidkv-2-2"])
    func turnsAcrossRestarts(profile: String) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(dim: 64)
        let whole = SyntheticCache(model, turns([31, 32, 33, 34, 35, 36], of: 29))
        _ = try makeStore(in: folder, model)
        var end = video.count
        try write(
            SyntheticCache(model, video), as: .video("v"), to: try Store(opening: folder.path + "/store"),
            profile: try .named(profile))
        for turn in 0..<6 {
            let store = try Store(opening: folder.path + "/store")
            let start = turn == 0 ? try store.prefix(of: .video("v")) : nil
            let writer = try store.writer(
                for: .session("s"), model: "small", profile: try .named(profile), startingFrom: start)
            #expect(writer.tokenCount == end)
            try whole.append(end..<end + 29, to: writer)
            try writer.finish(engineState: [UInt8(turn)])
            end += 29
            let prefix = try store.prefix(of: .session("s"))
            #expect(prefix.tokenCount == end)
            #expect(prefix.engineState == [UInt8(turn)])
            let tail = end / 64 * 64..<end
            #expect(try restored(store, prefix, tokens: tail)[0] == whole.bytes(layer: 0, tail))
            try expectSound(store)
        }
        let store = try Store(opening: folder.path + "/store")
        let info = try store.info(of: .session("s"))
        #expect(info.turns.map(\.firstToken) == (0..<6).map { video.count + 29 * $0 })
        if profile == "exact" {
            #expect(try restored(store, try store.prefix(of: .session("s")))[1] == whole.bytes(layer: 1, 0..<end))
        }
        #expect(try store.tokens(of: try store.prefix(of: .session("s"))) == whole.tokens)
    }

    @Test("Tail pieces are dropped when their page is full")
    func mergedTail() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(64, seed: 41))
        for end in stride(from: 8, through: 64, by: 8) {
            let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
            try cache.append(end - 8..<end, to: writer)
            try writer.finish()
        }
        #expect(try store.pages().map(\.isTail) == [false])
        try expectSound(store)
    }

    @Test("A fork shares everything and goes its own way")
    func fork() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), turns([51], of: 100))
        try write(cache, as: .session("a"), to: store)
        let before = try store.statistics().tokens
        try store.fork(.session("a"), to: "b")
        #expect(try store.statistics().tokens == before)
        let other = SyntheticCache(.small(), cache.tokens + .text(50, seed: 52))
        try write(other, as: .session("b"), to: store)
        #expect(try store.prefix(of: .session("a")).tokenCount == cache.tokens.count)
        #expect(try restored(store, try store.prefix(of: .session("b")))[0] == other.bytes(layer: 0, 0..<other.tokens.count))
        #expect(throws: StoreError.self) { try store.fork(.session("a"), to: "b") }
        try store.remove(.session("a"))
        #expect(try store.prefix(of: .session("b")).tokenCount == other.tokens.count)
        try expectSound(store)
    }

    @Test("A session cut anywhere goes on from there", arguments: [0, 1, 63, 64, 65, 100, 200, 258, 300])
    func truncate(count: Int) throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), turns([61], of: 100))
        try write(cache, as: .session("s"), to: store, chunk: 50)
        try store.truncate(session: "s", to: count)
        #expect(try store.prefix(of: .session("s")).tokenCount == count)
        let other = SyntheticCache(.small(), cache.tokens[0..<count] + .text(120, seed: 62))
        try write(other, as: .session("s"), to: store)
        let prefix = try store.prefix(of: .session("s"))
        #expect(prefix.tokenCount == other.tokens.count)
        // the "model" is causal, so the part before the cut is the same in both
        #expect(try restored(store, prefix)[0] == other.bytes(layer: 0, 0..<other.tokens.count))
        try expectSound(store)
    }

    @Test("Tokens borrowed from inside a lossy page are not quantized again")
    func quantizeOnce() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(dim: 64)
        let store = try makeStore(in: folder, model)
        let profile = try Profile.named("vidkv-2-2")
        let first = SyntheticCache(model, .text(192, seed: 71))
        try write(first, as: .session("a"), to: store, profile: profile)
        let lossy = try restored(store, try store.prefix(of: .session("a")))[0]
        // a second sequence shares 100 tokens: one page and 36 tokens of the next
        let second = SyntheticCache(model, first.tokens[0..<100] + .text(92, seed: 72))
        let match = try store.longestPrefix(of: second.tokens, model: "small")
        #expect(match.tokenCount == 100)
        try write(second, as: .session("b"), to: store, profile: profile, startingFrom: match)
        let prefix = try store.prefix(of: .session("b"))
        let shared = try restored(store, prefix, tokens: 64..<100)[0]
        let source = try restored(store, try store.prefix(of: .session("a")), tokens: 64..<100)[0]
        #expect(shared == source)
        #expect(!lossy.isEmpty && !prefix.isExact)
        #expect(prefix.keyError > 0)
        try expectSound(store)
    }

    @Test("Engine state comes back only where it is right")
    func engineState() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(150, seed: 81))
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
        try cache.append(0..<150, to: writer)
        try writer.finish(engineState: [1, 2, 3])
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").engineState == [1, 2, 3])
        #expect(try store.longestPrefix(of: cache.tokens[0..<149], model: "small").engineState == nil)
        #expect(try store.longestPrefix(of: cache.tokens + .text(5, seed: 82), model: "small").engineState == [1, 2, 3])
        try store.truncate(session: "s", to: 128)
        #expect(try store.prefix(of: .session("s")).engineState == nil)
    }

    @Test("Two writers of one session: the second to finish is told")
    func conflict() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let a = SyntheticCache(.small(), .text(20, seed: 91))
        let b = SyntheticCache(.small(), .text(20, seed: 92))
        let first = try store.writer(for: .session("s"), model: "small", profile: .exact)
        let second = try store.writer(for: .session("s"), model: "small", profile: .exact)
        try a.append(0..<20, to: first)
        try b.append(0..<20, to: second)
        try first.finish()
        #expect { try second.finish() } throws: { ($0 as? StoreError)?.code == .conflict }
        #expect(try store.tokens(of: try store.prefix(of: .session("s"))) == a.tokens)
    }

    @Test("A video's name is not taken over by other content unless that is meant")
    func videoReplacement() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let a = SyntheticCache(.small(), .video(.of(4), frames: 3))
        let b = SyntheticCache(.small(), .video(.of(5), frames: 3))
        try write(a, as: .video("v"), to: store)
        #expect { try write(b, as: .video("v"), to: store) } throws: { ($0 as? StoreError)?.code == .alreadyExists }
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact, replacing: true)
        try b.append(0..<b.tokens.count, to: writer)
        try writer.finish()
        #expect(try store.tokens(of: try store.prefix(of: .video("v"))) == b.tokens)
        #expect(try store.longestPrefix(of: a.tokens, model: "small").tokenCount == 3)
        try expectSound(store)
    }
}
