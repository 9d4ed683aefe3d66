import KVCodec
import ReelKV
import Testing

@Suite("Longest prefix")
struct PrefixTests {
    @Test("Exact to the token, against a search through everything stored", arguments: 0..<6)
    func againstBruteForce(seed: Int) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 1, heads: 1, dim: 8)
        let store = try makeStore(in: folder, model, pageTokens: 32)
        var random = SeededGenerator(UInt64(1000 + seed))
        // few distinct tokens and spans, so that sequences share beginnings of every length
        var stored: [TokenSequence] = []
        for index in 0..<25 {
            let tokens = branch(from: stored, &random)
            try write(
                SyntheticCache(model, tokens), as: .session("s\(index)"), to: store,
                chunk: Int.random(in: 1...90, using: &random), startingFrom: try store.longestPrefix(of: tokens, model: "small"))
            stored.append(tokens)
        }
        for _ in 0..<120 {
            let query = branch(from: stored, &random)
            let expected = stored.map { common($0, query) }.max() ?? 0
            let match = try store.longestPrefix(of: query, model: "small")
            #expect(match.tokenCount == expected)
            let tokens = try store.tokens(of: match)
            #expect(common(tokens, query) == match.tokenCount)
            #expect((match.stop == .complete) == (expected == query.count))
            if match.tokenCount > 0 {
                let cache = SyntheticCache(model, query)
                #expect(try restored(store, match)[0] == cache.bytes(layer: 0, 0..<match.tokenCount))
            }
        }
        try expectSound(store)
    }

    /// Ids are kept in as few bytes as the greatest of a run needs, whatever their number.
    @Test("Ids of every width come back, and no other matches", arguments: [1 << 8, 1 << 16, 1 << 24, Int32.max])
    func vocabularies(vocabulary: Int32) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 1, heads: 1, dim: 8)
        let store = try makeStore(in: folder, model, pageTokens: 32)
        for count in [1, 2, 3, 4, 5, 7, 32, 33, 66, 67, 70] {
            var ids = TokenSequence.text(count, seed: UInt64(count), vocabulary: vocabulary).ids
            ids[count / 2] = vocabulary - 1
            let tokens = TokenSequence.valid(ids)
            try write(SyntheticCache(model, tokens), as: .session("s\(count)"), to: store)
            let match = try store.longestPrefix(of: tokens, model: "small")
            #expect(match.tokenCount == count)
            #expect(try store.tokens(of: match) == tokens)
            ids[count - 1] ^= 1 << (31 - vocabulary.leadingZeroBitCount - 1)
            #expect(try store.longestPrefix(of: .valid(ids), model: "small").tokenCount == count - 1)
        }
    }

    /// A new sequence that goes on, somewhere, from an earlier one.
    private func branch(from stored: [TokenSequence], _ random: inout SeededGenerator) -> TokenSequence {
        let source = stored.randomElement(using: &random) ?? .valid([])
        var tokens = source[0..<Int.random(in: 0...source.count, using: &random)]
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            if Bool.random(using: &random) {
                tokens = tokens + .text(Int.random(in: 1...60, using: &random), seed: random.next() % 4, vocabulary: 3)
            } else {
                let count = Int.random(in: 1...80, using: &random)
                tokens =
                    tokens
                    + (TokenSequence.valid(
                        Array(repeating: -1, count: count),
                        media: [
                            MediaSpan(
                                digest: .of(UInt8(random.next() % 2)), firstToken: 0, count: count,
                                mediaOffset: Int(random.next() % 2) * 5)
                        ]))
            }
        }
        return tokens
    }

    private func common(_ a: TokenSequence, _ b: TokenSequence) -> Int {
        var count = 0
        while count < min(a.count, b.count), identity(a, count) == identity(b, count) { count += 1 }
        return count
    }

    private func identity(_ tokens: TokenSequence, _ index: Int) -> [Int] {
        guard let span = tokens.media.first(where: { $0.range.contains(index) }) else { return [Int(tokens.ids[index])] }
        return [Int(span.digest.bytes[0]), span.mediaOffset + index - span.firstToken, -1]
    }

    @Test("Children that agree in all the tokens of their keys are told apart")
    func longTies() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 1, heads: 1, dim: 8)
        let store = try makeStore(in: folder, model, pageTokens: 256)
        let shared = TokenSequence.text(150, seed: 1)
        for seed in UInt64(0)..<12 {
            let tokens = shared + .text(20, seed: seed / 3) + .text(90, seed: 100 + seed)
            try write(SyntheticCache(model, tokens), as: .session("s\(seed)"), to: store)
        }
        for seed in UInt64(0)..<12 {
            let query = shared + .text(20, seed: seed / 3) + .text(90, seed: 100 + seed)
            #expect(try store.longestPrefix(of: query, model: "small").tokenCount == 260)
            let other = shared + .text(20, seed: seed / 3) + .text(90, seed: 500)
            #expect(try store.longestPrefix(of: other, model: "small").tokenCount >= 170)
        }
    }

    @Test("Changed weights, another tenant, other frame sampling or one changed token never match past the change")
    func identity() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try store.addModel(.small("retrained", fingerprint: 8))
        try store.addModel(.small("other geometry", layers: 1))
        let tokens = TokenSequence.video(.of(1), frames: 4) + .text(100, seed: 1)
        try write(SyntheticCache(.small(), tokens), as: .video("v"), to: store)
        #expect(try store.longestPrefix(of: tokens, model: "small").tokenCount == tokens.count)
        #expect(try store.longestPrefix(of: tokens, model: "retrained").tokenCount == 0)
        #expect(try store.longestPrefix(of: tokens, model: "other geometry").tokenCount == 0)
        #expect(try store.longestPrefix(of: tokens, model: "small", tenant: "nobody").tokenCount == 0)
        try write(SyntheticCache(.small(), .text(5, seed: 2)), as: .video("x", tenant: "other"), to: store)
        #expect(try store.longestPrefix(of: tokens, model: "small", tenant: "other").tokenCount == 0)
        let resampled = TokenSequence.video(.of(2), frames: 4) + .text(100, seed: 1)
        #expect(try store.longestPrefix(of: resampled, model: "small").tokenCount == 3)
        for changed in [0, 2, 260, 300] {
            var ids = tokens.ids
            ids[changed] += 1
            let query = try TokenSequence(ids: ids, media: tokens.media)
            #expect(try store.longestPrefix(of: query, model: "small").tokenCount == changed)
        }
    }

    @Test("Position ids that differ end the match, and the defaults may be spelled out")
    func positions() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let ids = TokenSequence.text(100, seed: 3).ids
        let plain = try TokenSequence(ids: ids)
        try write(SyntheticCache(.small(), plain), as: .video("v"), to: store)
        var positions = (0..<100).map { Int32($0) }
        let spelled = try TokenSequence(ids: ids, positions: [positions])
        #expect(try store.longestPrefix(of: spelled, model: "small").tokenCount == 100)
        positions[80] = 5
        let moved = try TokenSequence(ids: ids, positions: [positions])
        #expect(try store.longestPrefix(of: moved, model: "small").tokenCount == 80)
        let threefold = try TokenSequence(ids: ids, positions: [positions, positions, positions])
        try write(SyntheticCache(.small(), threefold), as: .video("m-rope"), to: store)
        #expect(try store.longestPrefix(of: threefold, model: "small").tokenCount == 100)
        #expect(try store.tokens(of: try store.prefix(of: .video("m-rope"))).positions == threefold.positions)
        try expectSound(store)
    }

    @Test("A sliding-window layer's missing tokens end the match where an engine could not go on")
    func slidingWindow() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 2, slidingWindows: [nil, 40])
        let store = try makeStore(in: folder, model, pageTokens: 64)
        let cache = SyntheticCache(model, .text(300, seed: 4))
        // the engine hands over all tokens of the full layer, and the last 39 of the sliding one
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        var layers = try cache.layers(0..<300)
        layers[1] = try cache.layers(261..<300)[1]
        try writer.append(cache.tokens, layers: layers)
        try writer.finish()
        let match = try store.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == 300)
        var first: [Int] = []
        let bytes = try restored(store, match) { first.append($0.firstToken) }
        #expect(first == [0, 261])
        #expect(bytes[0] == cache.bytes(layer: 0, 0..<300))
        #expect(try restored(store, match, layers: 1..<2, tokens: 261..<300)[0] == cache.bytes(layer: 1, 261..<300))
        let shorter = try store.longestPrefix(of: cache.tokens[0..<250], model: "small")
        #expect(shorter.tokenCount == 0)
        #expect(shorter.stop == .slidingWindowIncomplete)
        // a shorter prefill of the same tokens brings the window's tokens there, and the page is taken from it
        let second = try store.writer(for: .video("shorter"), model: "small", profile: .exact)
        var shortLayers = try cache.layers(0..<250)
        shortLayers[1] = try cache.layers(200..<250)[1]
        try second.append(cache.tokens[0..<250], layers: shortLayers)
        try second.finish()
        let found = try store.longestPrefix(of: cache.tokens[0..<250], model: "small")
        #expect(found.tokenCount == 250)
        #expect(try restored(store, found, layers: 1..<2, tokens: 211..<250)[0] == cache.bytes(layer: 1, 211..<250))
        try expectSound(store)
    }
}
