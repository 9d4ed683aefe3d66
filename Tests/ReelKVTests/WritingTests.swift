import KVCodec
import ReelKV
import Testing

@Suite("Writing and restoring sequences")
struct WritingTests {
    @Test("What was appended comes back bit for bit, whatever the chunks", arguments: [1, 7, 63, 64, 65, 1000])
    func exactRoundTrip(chunk: Int) throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(chunk == 1 ? 80 : 300, seed: 1))
        try write(cache, as: .video("v"), to: store, chunk: chunk)
        let prefix = try store.prefix(of: .video("v"))
        #expect(prefix.tokenCount == cache.tokens.count)
        #expect(prefix.isExact)
        #expect(try store.tokens(of: prefix) == cache.tokens)
        let layers = try restored(store, prefix)
        for layer in 0..<2 { #expect(layers[layer] == cache.bytes(layer: layer, 0..<cache.tokens.count)) }
        try expectSound(store)
    }

    @Test("Every element type keeps its bits", arguments: ElementType.allCases)
    func elementTypes(type: ElementType) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(type: type)
        let store = try makeStore(in: folder, model)
        let cache = SyntheticCache(model, .text(150, seed: 2))
        try write(cache, as: .session("s"), to: store)
        #expect(try restored(store, try store.prefix(of: .session("s")))[1] == cache.bytes(layer: 1, 0..<150))
    }

    @Test("Any range of layers and tokens is the slice of the whole")
    func ranges() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 3)
        let store = try makeStore(in: folder, model)
        let cache = SyntheticCache(model, .text(333, seed: 3))
        try write(cache, as: .video("v"), to: store, profile: .exact)
        let prefix = try store.prefix(of: .video("v"))
        var random = SeededGenerator(4)
        for _ in 0..<30 {
            let first = Int.random(in: 0...333, using: &random)
            let tokens = first..<Int.random(in: first...333, using: &random)
            let layer = Int.random(in: 0..<3, using: &random)
            let bytes = try restored(store, prefix, layers: layer..<layer + 1, tokens: tokens)
            #expect(bytes[0] == cache.bytes(layer: layer, tokens))
        }
    }

    @Test("Layers are reported in order, each when it is complete")
    func layerOrder() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 9)
        let store = try makeStore(in: folder, model)
        let cache = SyntheticCache(model, .text(700, seed: 5))
        try write(cache, as: .video("v"), to: store)
        var reported: [Int] = []
        _ = try restored(store, try store.prefix(of: .video("v")), layers: 2..<9, threads: 4) { reported.append($0.layer) }
        #expect(reported == Array(2..<9))
    }

    @Test("An error in the callback ends the restore")
    func callbackError() throws {
        struct Stop: Error {}
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), .text(100, seed: 6)), as: .video("v"), to: store)
        let prefix = try store.prefix(of: .video("v"))
        #expect(throws: Stop.self) { _ = try restored(store, prefix) { _ in throw Stop() } }
    }

    @Test(
        "A lossy profile restores values near the originals, and says how near",
        arguments: ["vidkv-1.5-1.58", "vidkv-2-2", "int4"])
    func lossy(profile: String) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(dim: 64)
        let store = try makeStore(in: folder, model, pageTokens: 256)
        let cache = SyntheticCache(model, .text(600, seed: 7))
        try write(cache, as: .video("v"), to: store, profile: try .named(profile))
        let prefix = try store.prefix(of: .video("v"))
        #expect(!prefix.isExact)
        let original = cache.bytes(layer: 0, 0..<600)
        let layer = try restored(store, prefix)[0]
        let error = nmse(original, layer)
        #expect(error > 0)
        #expect(error < 0.5)
        #expect(prefix.keyError > 0 && prefix.valueError > 0)
        // the first 4 tokens of the sequence and the tail after the last full page are exact
        #expect(try restored(store, prefix, tokens: 0..<4)[0] == cache.bytes(layer: 0, 0..<4))
        #expect(try restored(store, prefix, tokens: 512..<600)[1] == cache.bytes(layer: 1, 512..<600))
        try expectSound(store)
    }

    private func nmse(_ original: [UInt8], _ decoded: [UInt8]) -> Double {
        func value(_ bytes: [UInt8], _ index: Int) -> Double {
            Double(Float(bitPattern: UInt32(bytes[2 * index]) << 16 | UInt32(bytes[2 * index + 1]) << 24))
        }
        var error = 0.0
        var energy = 0.0
        for index in 0..<original.count / 2 {
            let exact = value(original, index)
            error += (exact - value(decoded, index)) * (exact - value(decoded, index))
            energy += exact * exact
        }
        return error / energy
    }

    @Test("Writing the same tokens again stores nothing again")
    func idempotent() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .video(.of(1), frames: 5))
        try write(cache, as: .video("v"), to: store)
        let before = try store.statistics()
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        try cache.append(0..<cache.tokens.count, to: writer)
        try writer.finish()
        #expect(writer.reusedTokenCount == cache.tokens.count)
        let after = try store.statistics()
        #expect(after.tokens == before.tokens)
        #expect(after.profiles == before.profiles)
        try expectSound(store)
    }

    @Test("A second profile of the same pages stands beside the first; a match takes what the caller accepts")
    func twoEncodings() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, .small(dim: 64))
        let cache = SyntheticCache(.small(dim: 64), .text(256, seed: 8))
        try write(cache, as: .video("small"), to: store, profile: try .named("vidkv-2-2"))
        #expect(try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact).tokenCount == 0)
        try write(cache, as: .video("exact"), to: store, profile: .exact)
        let match = try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact)
        #expect(match.tokenCount == 256)
        #expect(try restored(store, match)[0] == cache.bytes(layer: 0, 0..<256))
        #expect(try store.statistics().profiles.map(\.pages) == [4, 4])
        try expectSound(store)
    }

    @Test("A match reports why it stops at pages that are too lossy")
    func tooLossy() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, .small(dim: 64))
        let cache = SyntheticCache(.small(dim: 64), .text(200, seed: 9))
        try write(cache, as: .video("v"), to: store, profile: try .named("vidkv-1.5-1.58"))
        let match = try store.longestPrefix(of: cache.tokens, model: "small", accepting: .exact)
        #expect(match.tokenCount == 0)
        guard case .tooLossy(let key, let value) = match.stop else {
            Issue.record("stopped for \(match.stop)")
            return
        }
        #expect(key > 0 && value > 0)
        let accepting = Acceptance(keyErrorMax: key, valueErrorMax: value)
        #expect(try store.longestPrefix(of: cache.tokens, model: "small", accepting: accepting).tokenCount >= 64)
    }

    @Test("A writer that is let go leaves pages that the next one goes on from")
    func interruptedWrite() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .video(.of(2), frames: 8))
        do {
            let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
            try cache.append(0..<300, to: writer)
            try writer.flush()
        }
        #expect(throws: StoreError.self) { try store.prefix(of: .video("v")) }
        #expect(try store.sequences(.video, building: true).map(\.isBuilding) == [true])
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        try cache.append(0..<cache.tokens.count, to: writer)
        try writer.finish()
        #expect(writer.reusedTokenCount == 256)
        #expect(try store.sequences(.video, building: true).map(\.isBuilding) == [false])
        try expectSound(store)
    }

    @Test("A cancelled write leaves nothing")
    func cancel() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(400, seed: 10))
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        try cache.append(0..<400, to: writer)
        try writer.flush()
        writer.cancel()
        #expect(try store.statistics().tokens == 0)
        #expect(throws: StoreError.self) { try writer.finish() }
        try expectSound(store)
    }

    @Test("Tensors that do not fit the model are refused before anything is stored")
    func misfits() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let tokens = TokenSequence.text(10, seed: 11)
        for other in [ModelSpec.small(layers: 3), .small(heads: 3), .small(dim: 16), .small(type: .float32)] {
            let cache = SyntheticCache(other, tokens)
            let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
            #expect { try writer.append(tokens, layers: try cache.layers(0..<10)) } throws: {
                ($0 as? StoreError)?.code == .modelMismatch
            }
        }
        let short = SyntheticCache(.small(), tokens)
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        #expect { try writer.append(tokens, layers: try short.layers(0..<9)) } throws: {
            ($0 as? StoreError)?.code == .modelMismatch
        }
    }

    @Test("An empty sequence can be stored and continued")
    func empty() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
        try writer.finish()
        #expect(try store.prefix(of: .session("s")).tokenCount == 0)
        let cache = SyntheticCache(.small(), .text(70, seed: 12))
        try write(cache, as: .session("s"), to: store)
        #expect(try store.prefix(of: .session("s")).tokenCount == 70)
        try expectSound(store)
    }
}
