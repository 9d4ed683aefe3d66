import KVCodec
import ReelKV
import Testing

/// A page or piece is stored once however many sequences need it, but never in place of a better one.
@Suite("What sequences may share")
struct SharingTests {
    private let folder = TemporaryFolder()
    private let model = ModelSpec.small()

    private func lossyVideo(_ store: Store, _ tokens: TokenSequence) throws {
        try write(SyntheticCache(model, tokens), as: .video("lossy"), to: store, profile: try .named("kivi-2"))
    }

    private func expectExact(_ name: SequenceName, _ cache: SyntheticCache, in store: Store) throws {
        let prefix = try store.prefix(of: name)
        #expect(prefix.isExact && prefix.tokenCount == cache.tokens.count)
        for (layer, bytes) in try restored(store, prefix).enumerated() {
            #expect(bytes == cache.bytes(layer: layer, 0..<cache.tokens.count))
        }
    }

    @Test("A tail piece behind lossy tokens is not taken for the one behind the same tokens, exact")
    func pieceBehindLossyTokens() throws {
        let store = try makeStore(in: folder, model)
        let tokens = TokenSequence.text(64, seed: 1)
        try lossyVideo(store, tokens)
        let cache = SyntheticCache(model, tokens[0..<40] + .text(10, seed: 2))
        try write(
            cache, as: .session("borrowed"), to: store,
            startingFrom: try store.longestPrefix(of: tokens[0..<40], model: "small"))
        #expect(try !store.prefix(of: .session("borrowed")).isExact)
        for end in [40, 50] {
            let writer = try store.writer(for: .session("own"), model: "small", profile: .exact)
            try cache.append(writer.tokenCount..<end, to: writer)
            try writer.finish()
        }
        try expectExact(.session("own"), cache, in: store)
        try expectSound(store)
    }

    @Test("A page into which lossy tokens were taken over gives way to one that was never lossy")
    func pageOfLossyTokens() throws {
        let store = try makeStore(in: folder, model)
        let tokens = TokenSequence.text(64, seed: 1)
        try lossyVideo(store, tokens)
        let cache = SyntheticCache(model, tokens[0..<40] + .text(24, seed: 2))
        try write(
            cache, as: .session("borrowed"), to: store,
            startingFrom: try store.longestPrefix(of: tokens[0..<40], model: "small"))
        #expect(try !store.prefix(of: .session("borrowed")).isExact)
        try write(cache, as: .session("own"), to: store)
        try expectExact(.session("own"), cache, in: store)
        // and not the other way round
        try store.remove(.session("borrowed"))
        try write(
            cache, as: .session("borrowed"), to: store,
            startingFrom: try store.longestPrefix(of: tokens[0..<40], model: "small", accepting: .any))
        try expectExact(.session("own"), cache, in: store)
        try expectSound(store)
    }

    @Test("A page that lacks sliding-window tokens gives way to one that has them from an earlier turn")
    func incompletePage() throws {
        let model = ModelSpec.small(slidingWindows: [nil, 16])
        let store = try makeStore(in: folder, model)
        let cache = SyntheticCache(model, .text(64, seed: 3))
        let short = try store.writer(for: .session("short"), model: "small", profile: .exact)
        try short.append(cache.tokens, layers: [try cache.layers(0..<64)[0], try cache.layers(30..<64)[1]])
        try short.finish()
        for end in [40, 64] {
            let writer = try store.writer(for: .session("whole"), model: "small", profile: .exact)
            try cache.append(writer.tokenCount..<end, to: writer)
            try writer.finish()
        }
        var firstTokens: [Int] = []
        let bytes = try restored(store, try store.prefix(of: .session("whole"))) { firstTokens.append($0.firstToken) }
        #expect(firstTokens == [0, 0])
        #expect(bytes[1] == cache.bytes(layer: 1, 0..<64))
        try expectSound(store)
    }

    @Test("What a model or tenant has that is removed during a write is not written")
    func removedDuringWrite() throws {
        let store = try makeStore(in: folder, model)
        let cache = SyntheticCache(model, .text(100, seed: 4))
        for remove in [
            { try store.removeModel(named: "small", deletingSequences: true) }, { try store.removeTenant(named: "default") },
        ] {
            try store.addModel(model)
            let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
            try cache.append(0..<100, to: writer)
            try remove()
            #expect { try writer.finish() } throws: { ($0 as? StoreError)?.code == .conflict }
            #expect(try store.sequences(.session).isEmpty)
            try expectSound(store)
        }
    }
}
