import KVCodec
import ReelKV
import Testing

@Suite("Demotion")
struct DemotionTests {
    private let model = ModelSpec.small(layers: 3, heads: 2, dim: 64)

    /// Four pages and a tail.
    private func cache(_ seed: UInt64) -> SyntheticCache { SyntheticCache(model, .text(4 * 64 + 20, seed: seed)) }

    @Test("Demoted pages give what encoding the originals would have given, and say what error they have")
    func content() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        let direct = try Store.create(at: folder.path + "/direct", options: options)
        try direct.addModel(model)
        let cache = cache(1)
        try write(cache, as: .session("s"), to: store)
        let profile = try Profile.named("int4")
        try write(cache, as: .session("s"), to: direct, profile: profile)
        let report = try store.demote(DemotionOptions(profile: profile))
        #expect(report.pages == 4)
        #expect(report.bytesAfter < report.bytesBefore)

        let demoted = try store.prefix(of: .session("s"))
        let encoded = try direct.prefix(of: .session("s"))
        #expect(try restored(store, demoted) == restored(direct, encoded))
        #expect(demoted.keyError == encoded.keyError && demoted.valueError == encoded.valueError)
        #expect(demoted.keyError > 0)
        // the tail is kept exact
        #expect(try store.pages().filter { $0.isTail }.map(\.keyError) == [0])
        #expect(try store.pages().filter { !$0.isTail }.map(\.profileID) == Array(repeating: profile.id, count: 4))
        try expectSound(store)
    }

    private var options: Store.Options {
        var options = Store.Options()
        options.pageTokens = 64
        return options
    }

    @Test("Errors of one demotion after another add up, in the index and in the images")
    func errorsAddUp() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        try write(cache(2), as: .session("s"), to: store)
        var last: (key: Float, value: Float) = (0, 0)
        for name in ["int8", "int4", "vidkv-2-2", "vidkv-1.5-1.58"] {
            #expect(try store.demote(DemotionOptions(profile: .named(name))).pages == 4)
            let page = try #require(try store.pages().first { !$0.isTail })
            #expect(page.keyError > last.key && page.valueError > last.value)
            last = (page.keyError, page.valueError)
            let image = try store.withImage(of: page) { $0.meanError }
            #expect(image.key == page.keyError && image.value == page.valueError)
            try expectSound(store)
        }
        // upwards, nothing happens
        #expect(try store.demote(DemotionOptions(profile: .named("int4"))).pages == 0)
        #expect { try store.demote(DemotionOptions(profile: .exact)) } throws: {
            ($0 as? StoreError)?.code == .invalidArgument
        }
    }

    @Test("Exact-only callers then miss, others hit; writing it again brings the exact page back")
    func acceptance() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        let cache = cache(3)
        try write(cache, as: .session("s"), to: store)
        _ = try store.demote(DemotionOptions(profile: .named("vidkv-2-2")))
        #expect(try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact).tokenCount == 0)
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == cache.tokens.count)
        try write(cache, as: .session("again"), to: store)
        let exact = try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact)
        #expect(exact.tokenCount == cache.tokens.count)
        #expect(try restored(store, exact)[0] == cache.bytes(layer: 0, 0..<cache.tokens.count))
        try expectSound(store)
    }

    @Test("A reader's prefix from before is refused, not served lossier; one that is leased stays as it is")
    func readers() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        let cache = cache(4)
        try write(cache, as: .session("s"), to: store)
        let prefix = try store.longestPrefix(of: cache.tokens, model: "small")
        do {
            let lease = try store.lease(prefix)
            let report = try store.demote(DemotionOptions(profile: .named("int4")))
            #expect(report.pages == 0 && report.pagesLeft == 4)
            #expect(try restored(store, prefix)[1] == cache.bytes(layer: 1, 0..<cache.tokens.count))
            lease.release()
        }
        #expect(try store.demote(DemotionOptions(profile: .named("int4"))).pages == 4)
        _ = try store.compact()
        #expect { try restored(store, prefix) } throws: { ($0 as? StoreError)?.code == .pageUnavailable }
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").keyError > 0)
        try expectSound(store)
    }

    @Test("Only pages unused for long enough, and only until there is room")
    func limits() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        try write(cache(5), as: .session("s"), to: store)
        var options = DemotionOptions(profile: try .named("int4"))
        options.unusedSeconds = 3600
        #expect(try store.demotionPlan(options).pages == 0)
        #expect(try store.demote(options).pages == 0)
        options.unusedSeconds = 0
        options.freeBytes = 1
        #expect(try store.demote(options).pages == 0)
        options.freeBytes = nil
        let plan = try store.demotionPlan(options)
        #expect(plan.pages == 4)
        #expect(plan.bytesBefore == (try store.pages().filter { !$0.isTail }.reduce(0) { $0 + $1.imageBytes }))
        #expect(try store.demote(options).pages == 4)
    }

    @Test("Under a quota, pages are demoted before any goes")
    func automatic() throws {
        let folder = TemporaryFolder()
        let big = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, big, volumeBytesMax: 1 << 20)
        let profile = try Profile.named("vidkv-1.5-1.58")
        let caches = (0..<10).map { SyntheticCache(big, .text(512, seed: 100 + UInt64($0))) }
        try store.update { settings in
            settings.quotaBytes = 8 << 20
            settings.demotion = StoreSettings.Demotion(profile: profile)
            settings.policy = .lru
        }
        for (index, cache) in caches.enumerated() {
            try write(cache, as: .session("s\(index)"), to: store)
            let bytes = try store.occupiedBytes()
            #expect(bytes <= 9 << 20)
        }
        // all of them exact would not have fitted
        let profiles = Set(try store.pages().map(\.profileID))
        #expect(profiles == [Profile.exact.id, profile.id])
        #expect(try store.sequences(.session).count == caches.count)
        for cache in caches {
            #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == 512)
        }
        try expectSound(store)
    }

    @Test("Pages that somebody holds, or that would not be smaller, do not keep a bounded write busy for ever")
    func fruitless() throws {
        let folder = TemporaryFolder()
        let big = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, big, volumeBytesMax: 1 << 20)
        try store.update { settings in
            settings.quotaBytes = 6 << 20
            settings.demotion = StoreSettings.Demotion(profile: try .named("vidkv-2-2"))
        }
        let held = SyntheticCache(big, .text(512, seed: 300))
        try write(held, as: .session("held"), to: store)
        let lease = try store.lease(try store.prefix(of: .session("held")))
        for index in 0..<8 {
            try write(SyntheticCache(big, .text(512, seed: 301 + UInt64(index))), as: .session("s\(index)"), to: store)
            #expect(try store.occupiedBytes() <= 7 << 20)
        }
        #expect(try store.prefix(of: .session("held")).isExact)
        lease.release()
        try expectSound(store)
    }

    @Test("A page whose first tokens were borrowed from a lossy one keeps their error when it is demoted")
    func borrowed() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, model)
        let whole = cache(6)
        try write(whole, as: .video("v"), to: store, profile: .named("int4"))
        try store.fork(.video("v"), to: "s", count: 100)
        let longer = SyntheticCache(model, whole.tokens[0..<100] + .text(60, seed: 9))
        try write(longer, as: .session("s"), to: store)
        let before = try #require(try store.pages(of: store.prefix(of: .session("s"))).dropFirst().first)
        #expect(before.keyError > 0)
        _ = try store.demote(DemotionOptions(profile: .named("vidkv-2-2")))
        let after = try #require(try store.pages(of: store.prefix(of: .session("s"))).dropFirst().first)
        #expect(after.keyError > before.keyError)
        try expectSound(store)
    }
}
