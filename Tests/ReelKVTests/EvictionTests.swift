import KVCodec
import ReelKV
import Testing

/// Sequences of a store that are all of one size: 4 pages of 64 tokens and a tail.
private func session(_ index: Int, _ model: ModelSpec = .small(), tokens: Int = 4 * 64 + 20) -> SyntheticCache {
    SyntheticCache(model, .text(tokens, seed: UInt64(1000 + index)))
}

/// What of a sequence is stored must be what was appended, bit for bit.
private func expectHitIsRight(
    _ cache: SyntheticCache, in store: Store, tenant: String = Store.defaultTenant, isCounted: Bool = false,
    sourceLocation: SourceLocation = #_sourceLocation
) throws -> Int {
    let prefix = try store.longestPrefix(
        of: cache.tokens, model: cache.model.name, tenant: tenant, isCounted: isCounted)
    let tensors = try restored(store, prefix)
    for layer in cache.model.layers.indices {
        #expect(tensors[layer] == cache.bytes(layer: layer, 0..<prefix.tokenCount), sourceLocation: sourceLocation)
    }
    return prefix.tokenCount
}

@Suite("Eviction")
struct EvictionTests {
    @Test("Pages go leaf first, the names that end in them go with them, and what is left is right")
    func leafFirst() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let caches = (0..<8).map { session($0) }
        for (index, cache) in caches.enumerated() { try write(cache, as: .session("s\(index)"), to: store) }
        try store.update { $0.policy = .lru }
        let bytes = try store.pages().reduce(0) { $0 + $1.imageBytes } / 8
        var lastCounts = Array(repeating: Int.max, count: 8)
        for _ in 1...6 {
            let report = try store.evict { $0.bytes < bytes }
            #expect(report.bytes >= bytes)
            try expectSound(store)
            for (index, cache) in caches.enumerated() {
                let count = try expectHitIsRight(cache, in: store)
                #expect(count <= lastCounts[index])
                lastCounts[index] = count
            }
            // the least recently used ones lost theirs first
            #expect(lastCounts == lastCounts.sorted())
            let names = try store.sequences(.session).map(\.name.name)
            #expect(names == (0..<8).filter { lastCounts[$0] == caches[$0].tokens.count }.map { "s\($0)" })
        }
        #expect(lastCounts[5] < caches[5].tokens.count)
        #expect(lastCounts[7] == caches[7].tokens.count)
    }

    @Test("A dry run tells what would go and changes nothing")
    func dryRun() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        for index in 0..<4 { try write(session(index), as: .session("s\(index)"), to: store) }
        let before = try store.pages()
        for policy in EvictionPolicy.allCases {
            let plan = try store.evictionPlan(to: 0, policy: policy)
            #expect(plan.pages == before.count)
            #expect(Set(plan.sequences.map(\.name)) == ["s0", "s1", "s2", "s3"])
        }
        #expect(try store.pages() == before)
        #expect(try store.settings().policy == .adaptive)
        try expectSound(store)
        #expect(try store.evict(to: 0, policy: .fifo).pages == before.count)
        #expect(try store.settings().policy == .adaptive)
        #expect(try store.pages().isEmpty)
        try expectSound(store)
    }

    @Test("What was used lately stays, also after a restart; first in, first out does not care")
    func recency() throws {
        for policy in [EvictionPolicy.lru, .fifo] {
            let folder = TemporaryFolder()
            var store: Store? = try makeStore(in: folder)
            let caches = (0..<4).map { session($0) }
            for (index, cache) in caches.enumerated() { try write(cache, as: .session("s\(index)"), to: #require(store)) }
            try #require(store).update { $0.policy = policy }
            _ = try #require(store).longestPrefix(of: caches[0].tokens, model: "small")
            // the last reference closes the store, and what was noted of its use is written down
            store = nil
            let reopened = try Store(opening: folder.path + "/store")
            let report = try reopened.evict { $0.pages < 2 }
            #expect(report.pages == 2)
            #expect(report.sequences.map(\.name) == [policy == .lru ? "s1" : "s0"])
            try expectSound(reopened)
        }
    }

    @Test("Pinned pages stay; when nothing else is left, a write is refused and nothing is lost")
    func pins() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
        let video = SyntheticCache(model, .video(.of(3), frames: 10))
        try write(video, as: .video("v"), to: store)
        #expect(try store.info(of: .video("v")).isPinned)
        let chat = SyntheticCache(model, .text(300, seed: 4))
        try write(chat, as: .session("s"), to: store)
        #expect(try !store.info(of: .session("s")).isPinned)
        let report = try store.evict(to: 0)
        #expect(report.sequences == [.session("s")])
        #expect(try expectHitIsRight(video, in: store) == video.tokens.count)

        try store.update { $0.quotaBytes = 4 << 20 }
        let other = SyntheticCache(model, .text(1000, seed: 5))
        #expect { try write(other, as: .session("t"), to: store) } throws: { ($0 as? StoreError)?.code == .quotaExceeded }
        #expect(try expectHitIsRight(video, in: store) == video.tokens.count)
        try expectSound(store)
        try store.setPinned(false, .video("v"))
        try write(other, as: .session("t"), to: store)
        #expect(try expectHitIsRight(other, in: store) == other.tokens.count)
        #expect(try expectHitIsRight(video, in: store) < video.tokens.count)
        #expect(try store.sequences(.video).isEmpty)
        try expectSound(store)
    }

    @Test("A write that is refused takes nothing with it, and one that fits evicts no more than it must")
    func refusals() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
        try store.update { $0.quotaBytes = 4 << 20 }
        let kept = SyntheticCache(model, .text(300, seed: 6))
        try write(kept, as: .session("kept"), to: store)
        let large = SyntheticCache(model, .text(1600, seed: 7))
        #expect { try write(large, as: .session("large"), to: store) } throws: { ($0 as? StoreError)?.code == .quotaExceeded }
        #expect(try expectHitIsRight(kept, in: store) == kept.tokens.count)
        // pinned pages that fill most of the quota leave room for what fits beside them
        try write(SyntheticCache(model, .text(640, seed: 8)), as: .video("v"), to: store)
        #expect(try expectHitIsRight(kept, in: store) == kept.tokens.count)
        #expect {
            try store.update { $0.quotaBytes = 1 << 20 }; _ = try store.makeRoom()
        } throws: {
            ($0 as? StoreError)?.code == .quotaExceeded
        }
        #expect(try expectHitIsRight(kept, in: store) == kept.tokens.count)
        // engine state lies in the index, and counts as well
        try store.update { $0.quotaBytes = 6 << 20 }
        let writer = try store.writer(for: .session("state"), model: "small", profile: .exact)
        try kept.append(0..<300, to: writer)
        #expect { try writer.finish(engineState: Array(repeating: 1, count: 8 << 20)) } throws: {
            ($0 as? StoreError)?.code == .quotaExceeded
        }
        #expect(try store.occupiedBytes() <= 6 << 20)
        try expectSound(store)
    }

    @Test("What a pinned sequence shares stays, what hangs on it may go")
    func sharedPins() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let video = TokenSequence.video(.of(1), frames: 4)
        try write(SyntheticCache(.small(), video), as: .video("v"), to: store)
        let chat = SyntheticCache(.small(), video + .text(300, seed: 1))
        try write(chat, as: .session("s"), to: store, startingFrom: try store.prefix(of: .video("v")))
        _ = try store.evict(to: 0)
        #expect(try store.sequences(.session).isEmpty)
        #expect(try expectHitIsRight(chat, in: store) == video.count)
        try store.fork(.video("v"), to: "fork")
        try store.setPinned(true, .session("fork"))
        try store.remove(.video("v"))
        _ = try store.evict(to: 0)
        #expect(try expectHitIsRight(chat, in: store) == video.count)
        try store.setPinned(false, .session("fork"))
        _ = try store.evict(to: 0)
        #expect(try store.pages().isEmpty)
        try expectSound(store)
    }

    @Test("A session that was evicted is not gone on with by mistake")
    func continuing() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = session(1)
        try write(cache, as: .session("s"), to: store)
        let count = cache.tokens.count
        _ = try store.writer(for: .session("s"), model: "small", profile: .exact, continuingAfter: count)
        _ = try store.evict(to: 0)
        #expect {
            _ = try store.writer(for: .session("s"), model: "small", profile: .exact, continuingAfter: count)
        } throws: { ($0 as? StoreError)?.code == .conflict }
    }

    @Test("Pages unused for too long are dropped, and names with them")
    func expiry() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        try write(session(0), as: .session("s"), to: store)
        try write(session(1), as: .video("v"), to: store)
        try store.update { $0.unusedSecondsMax = 3600 }
        #expect(try store.makeRoom().pages == 0)
        // a time that has passed for everything
        try store.update { $0.unusedSecondsMax = 0 }
        #expect(try store.settings().unusedSecondsMax == nil)
        #expect(try store.makeRoom().pages == 0)
    }

    @Test("A tenant's quota takes from that tenant alone")
    func tenants() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let others = (0..<3).map { session($0) }
        for (index, cache) in others.enumerated() { try write(cache, as: .session("s\(index)", tenant: "a"), to: store) }
        let bytes = try store.pages().reduce(0) { $0 + $1.imageBytes }
        try store.setQuota(bytes, ofTenant: "b")
        #expect(try store.quota(ofTenant: "b") == bytes)
        let own = (0..<8).map { session(10 + $0) }
        for (index, cache) in own.enumerated() {
            try write(cache, as: .session("s\(index)", tenant: "b"), to: store)
            let used = try store.pages().filter { $0.tenant == "b" }.reduce(0) { $0 + $1.imageBytes }
            #expect(used <= bytes)
        }
        for cache in others { #expect(try expectHitIsRight(cache, in: store, tenant: "a") == cache.tokens.count) }
        #expect(try expectHitIsRight(own[7], in: store, tenant: "b") == own[7].tokens.count)
        #expect(try expectHitIsRight(own[0], in: store, tenant: "b") == 0)
        for cache in own { _ = try expectHitIsRight(cache, in: store, tenant: "b") }
        try expectSound(store)
        try store.setQuota(1, ofTenant: "b")
        #expect { try write(session(30), as: .session("x", tenant: "b"), to: store) } throws: {
            ($0 as? StoreError)?.code == .quotaExceeded
        }
        try expectSound(store)
    }

    @Test("What writers that died left unfinished goes when room is needed")
    func abandoned() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        do {
            let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
            try session(0).append(0..<256, to: writer)
            try writer.flush()
            #expect(try store.evict(to: 0).pages == 0)
        }
        #expect(try store.evict(to: 0).pages == 4)
        #expect(try store.pages().isEmpty)
        #expect(try store.sequences(.video, building: true).isEmpty)
        try expectSound(store)
    }

    @Test("The anonymous rest of what was evicted goes with its model and tenant")
    func anonymous() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        for tenant in ["a", "b"] { try write(session(0), as: .session("s", tenant: tenant), to: store) }
        // one page or two of each, which takes the names away
        #expect(try store.evict { $0.sequences.count < 2 }.sequences.count == 2)
        #expect(try !store.pages().isEmpty)
        try store.removeTenant(named: "a")
        #expect(try store.pages().allSatisfy { $0.tenant == "b" })
        try expectSound(store)
        try store.removeModel(named: "small", deletingSequences: true)
        #expect(try store.pages().isEmpty)
        try expectSound(store)
    }

    @Test("Whatever is done in whatever order, the index stays sound and every hit is right", arguments: 1...4)
    func randomOperations(seed: UInt64) throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder, volumeBytesMax: 1 << 20)
        var random = SeededGenerator(seed)
        let roots = (0..<3).map { TokenSequence.text(64 * 3 + 10, seed: 50 + UInt64($0)) }
        let caches = (0..<12).map { index in
            SyntheticCache(
                .small(),
                roots[index % 3][0..<Int.random(in: 1...roots[0].count, using: &random)]
                    + .text(Int.random(in: 1...200, using: &random), seed: UInt64(index)))
        }
        for _ in 0..<120 {
            let index = Int.random(in: 0..<caches.count, using: &random)
            let cache = caches[index]
            let name = SequenceName(index % 4 == 0 ? .video : .session, "s\(index)")
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3:
                let isThere = (try? store.info(of: name)) != nil
                let start = try store.longestPrefix(of: cache.tokens, model: "small")
                if !isThere { try write(cache, as: name, to: store, startingFrom: name.kind == .session ? start : nil) }
            case 4: try? store.remove(name)
            case 5: _ = try? store.setPinned(Bool.random(using: &random), name)
            case 6: try store.update { $0.policy = EvictionPolicy.allCases.randomElement(using: &random) ?? .lru }
            case 7: try? store.truncate(session: name.name, to: Int.random(in: 0...100, using: &random))
            default:
                let count = Int.random(in: 0...5, using: &random)
                _ = try store.evict { $0.pages < count }
            }
            _ = try expectHitIsRight(cache, in: store, isCounted: Bool.random(using: &random))
            try expectSound(store)
        }
    }
}
