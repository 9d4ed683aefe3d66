import KVCodec
import ReelKV
import Testing

@Suite("Deleting")
struct DeletionTests {
    @Test("What is deleted is gone, what others share stays")
    func shared() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let video = TokenSequence.video(.of(1), frames: 4)
        try write(SyntheticCache(.small(), video), as: .video("v"), to: store)
        let chat = SyntheticCache(.small(), video + .text(100, seed: 1))
        try write(chat, as: .session("s"), to: store, startingFrom: try store.prefix(of: .video("v")))
        try store.remove(.video("v"))
        #expect(throws: StoreError.self) { try store.prefix(of: .video("v")) }
        #expect(try store.longestPrefix(of: chat.tokens, model: "small").tokenCount == chat.tokens.count)
        try expectSound(store)
        try store.remove(.session("s"))
        #expect(try store.statistics().tokens == 0)
        #expect(try store.longestPrefix(of: chat.tokens, model: "small").tokenCount == 0)
        try expectSound(store)
    }

    @Test("Models and tenants go with all that is theirs, and only when asked")
    func modelsAndTenants() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try store.addModel(.small("second", fingerprint: 9))
        let cache = SyntheticCache(.small(), .text(100, seed: 2))
        try write(cache, as: .video("v"), to: store)
        try write(cache, as: .video("v", tenant: "other"), to: store)
        try write(SyntheticCache(.small("second", fingerprint: 9), cache.tokens), as: .session("s"), to: store)
        #expect { try store.removeModel(named: "small") } throws: { ($0 as? StoreError)?.code == .inUse }
        try store.removeTenant(named: "other")
        #expect(try store.sequences(.video).map(\.name.tenant) == ["default"])
        try store.removeModel(named: "small", deletingSequences: true)
        #expect(try store.models().map(\.name) == ["second"])
        #expect(try store.sequences(.session).count == 1)
        #expect(try store.statistics().tokens == 100)
        try expectSound(store)
    }

    @Test("Sealed volumes in which nothing lives any more are removed at once")
    func volumes() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
        for index in 0..<6 {
            try write(SyntheticCache(model, .text(512, seed: UInt64(index))), as: .video("v\(index)"), to: store)
        }
        let full = try store.statistics()
        #expect(full.volumes.count > 3)
        #expect(full.volumes.filter { !$0.isSealed }.count == 1)
        for index in 0..<6 { try store.remove(.video("v\(index)")) }
        let empty = try store.statistics()
        #expect(empty.volumes.count == 1)
        #expect(empty.storedBytes < full.storedBytes / 2)
        #expect(TemporaryFolder.names(folder.path + "/store/volumes").filter { $0.hasSuffix(".mdb") }.count == 1)
        try expectSound(store)
    }

    @Test("Random writes, forks, cuts, deletions and compactions keep the store sound", arguments: 0..<3)
    func randomOperations(seed: Int) throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 1, heads: 1, dim: 16)
        let store = try makeStore(in: folder, model, pageTokens: 32)
        var random = SeededGenerator(UInt64(seed))
        var contents: [String: TokenSequence] = [:]
        for step in 0..<60 {
            let name = "s\(Int.random(in: 0..<6, using: &random))"
            switch Int.random(in: 0..<8, using: &random) {
            case 6:
                _ = try store.compact(.to(1))
            case 7:
                _ = try store.compactStep(bytesMax: Int.random(in: 1...4096, using: &random), deadShareMin: 0)
            case 0 where contents[name] != nil:
                try store.remove(.session(name))
                contents[name] = nil
            case 1 where contents[name] != nil:
                let count = Int.random(in: 0...contents[name]!.count, using: &random)
                try store.truncate(session: name, to: count)
                contents[name] = contents[name]![0..<count]
            case 2 where contents[name] != nil:
                try store.fork(.session(name), to: "fork\(step)")
                contents["fork\(step)"] = contents[name]
            default:
                let addition = TokenSequence.text(Int.random(in: 1...70, using: &random), seed: random.next() % 3, vocabulary: 4)
                let tokens = (contents[name] ?? .valid([])) + addition
                let start = contents[name] == nil ? try store.longestPrefix(of: tokens, model: "small") : nil
                let profile = try Profile.named(step % 2 == 0 ? "exact" : "int8")
                let writer = try store.writer(for: .session(name), model: "small", profile: profile, startingFrom: start)
                try SyntheticCache(model, tokens).append(writer.tokenCount..<tokens.count, to: writer)
                try writer.finish()
                contents[name] = tokens
            }
            try expectSound(store)
            for (name, tokens) in contents {
                let prefix = try store.longestPrefix(of: tokens, model: "small")
                #expect(prefix.tokenCount == tokens.count, "\(name) after step \(step)")
                _ = try restored(store, prefix)
            }
        }
        for (name, tokens) in contents {
            #expect(try store.tokens(of: try store.prefix(of: .session(name))) == tokens)
            try store.remove(.session(name))
        }
        #expect(try store.statistics().tokens == 0)
        try expectSound(store)
    }
}
