import KVCodec
import ReelKV
import Testing

@Suite("Statistics of use")
struct UsageStatisticsTests {
    private struct Node {
        var hash: Digest
        var parent: Int?
        var firstToken: Int
        var bytes: Int
        var lastUsed: Int64
    }

    /// Nodes in any order, each behind one that begins earlier, or behind none.
    private static func forest(using random: inout SeededGenerator) -> [Node] {
        let ages: [Int64] = [0, 59, 60, 599, 600, 3599, 3600, 21599, 21600, 86399, 86400, 604_799, 604_800, 1 << 40, -5]
        let depth = Int.random(in: 1...6, using: &random)
        var nodes: [Node] = []
        for index in 0..<Int.random(in: 1...60, using: &random) {
            let parents = nodes.indices.filter { nodes[$0].firstToken < depth }
            let parent = Bool.random(using: &random) ? parents.randomElement(using: &random) : nil
            let hash = Digest(bytes: (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) })!
            nodes.append(
                Node(
                    hash: hash, parent: parent, firstToken: parent.map { nodes[$0].firstToken + 1 } ?? 0,
                    bytes: 1 << (index % 20),
                    lastUsed: now - ages.randomElement(using: &random)!))
        }
        return nodes
    }

    private static let now: Int64 = 1 << 41

    @Test("A page is as old as the last use of it or of what hangs on it", arguments: 0..<50)
    func ages(seed: UInt64) {
        var random = SeededGenerator(seed)
        let nodes = Self.forest(using: &random)
        var ages = NodeAges()
        for node in nodes.shuffled(using: &random) {
            let parent = node.parent.map { nodes[$0].hash } ?? Digest(bytes: Array(repeating: 0, count: 32))!
            // some say when they were used, the others were only made then
            let isUsed = Bool.random(using: &random)
            ages.add(
                node.hash, parent: parent, firstToken: node.firstToken, bytes: node.bytes,
                createdAt: isUsed ? .min : node.lastUsed)
            if isUsed { ages.addUse(of: node.hash, at: node.lastUsed) }
        }
        let bounds: [Int64?] = [60, 600, 3600, 21600, 86400, 604_800, nil]
        var expected = bounds.map { (secondsBelow: $0, pages: 0, bytes: 0) }
        for index in nodes.indices {
            var youngest = Int64.min
            for other in nodes.indices {
                var ancestor: Int? = other
                while let step = ancestor, step != index { ancestor = nodes[step].parent }
                if ancestor != nil { youngest = max(youngest, nodes[other].lastUsed) }
            }
            let place = bounds.firstIndex { bound in bound.map { Self.now - youngest < $0 } ?? true }!
            expected[place].pages += 1
            expected[place].bytes += nodes[index].bytes
        }
        let found = ages.histogram(now: Self.now)
        #expect(found.map(\.secondsBelow) == bounds)
        #expect(found.map(\.pages) == expected.map(\.pages))
        #expect(found.map(\.bytes) == expected.map(\.bytes))
    }

    @Test("Look-ups and evictions are counted, and outlive the process's handle")
    func counts() throws {
        let folder = TemporaryFolder()
        let cache = SyntheticCache(.small(), .text(300, seed: 1))
        do {
            let store = try makeStore(in: folder)
            try write(cache, as: .session("a"), to: store)
            _ = try store.longestPrefix(of: cache.tokens[0..<200], model: cache.model.name)
            _ = try store.longestPrefix(of: .text(50, seed: 2), model: cache.model.name)
            _ = try store.longestPrefix(of: cache.tokens, model: cache.model.name, isCounted: false)
        }
        let store = try Store(opening: folder.path + "/store")
        var statistics = try store.statistics()
        #expect(statistics.usage.lookups == 2)
        #expect(statistics.usage.hits == 1)
        #expect(statistics.usage.tokensLookedUp == 250)
        #expect(statistics.usage.tokensMatched == 200)
        #expect(statistics.usage.tokenHitRate == 0.8)
        let images = statistics.profiles.reduce(0) { $0 + $1.imageBytes }
        #expect(statistics.appendedBytes == images)
        #expect(statistics.ages.reduce(0) { $0 + $1.bytes } == images)
        #expect(statistics.ages.reduce(0) { $0 + $1.pages } == 5)
        #expect(try store.space().liveBytes == images)
        #expect(try store.evict(to: 0).bytes == images)
        statistics = try store.statistics()
        #expect(statistics.usage.evictedPages == 5)
        #expect(statistics.usage.evictedBytes == images)
        #expect(statistics.usage.evictedSequences == 1)
        #expect(statistics.ages.allSatisfy { $0.pages == 0 })
        #expect(try store.space().liveBytes == 0)
    }

    @Test("A tenant is brought within a bound that was made narrower; pinned pages stay, and the bound holds")
    func tenantBound() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let caches = (0..<4).map { SyntheticCache(.small(), .text(150, seed: UInt64($0))) }
        for (index, cache) in caches.enumerated() {
            try write(cache, as: .session("s\(index)", tenant: "acme"), to: store)
            try write(cache, as: .session("s\(index)"), to: store)
        }
        let before = try store.space().tenants
        let half = before[0].liveBytes / 2
        try store.setQuota(half, ofTenant: "acme")
        let report = try store.makeRoom(ofTenant: "acme")
        var after = try store.space().tenants
        #expect(after.map(\.name) == ["acme", "default"])
        #expect(after[0].liveBytes <= half)
        #expect(after[0].liveBytes == before[0].liveBytes - report.bytes)
        #expect(after[1] == before[1])
        #expect(report.sequences.allSatisfy { $0.tenant == "acme" })
        for name in try store.sequences(.session, tenant: "acme").map(\.name) { try store.setPinned(true, name) }
        let pinned = try store.sequences(.session, tenant: "acme").count
        #expect(pinned > 0)
        try store.setQuota(1, ofTenant: "acme")
        #expect { try store.makeRoom(ofTenant: "acme") } throws: { ($0 as? StoreError)?.code == .quotaExceeded }
        after = try store.space().tenants
        #expect(after[0].quotaBytes == 1)
        #expect(try store.sequences(.session, tenant: "acme").count == pinned)
        #expect { try store.makeRoom(ofTenant: "nobody") } throws: { ($0 as? StoreError)?.code == .notFound }
        try expectSound(store)
    }

    @Test("What is stored already takes no room, however full the store is")
    func nothingToAppend() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let model = ModelSpec.small("wide", dim: 128)
        try store.addModel(model)
        let wide = SyntheticCache(model, .text(2048, seed: 1))  // more than the least quota
        try write(wide, as: .video("v"), to: store)
        try store.update { $0.quotaBytes = StoreSettings.quotaBytesMin }
        #expect { try store.makeRoom() } throws: { ($0 as? StoreError)?.code == .quotaExceeded }
        try write(wide, as: .video("again"), to: store)
        #expect(try store.info(of: .video("again")).tokenCount == 2048)
        let other = SyntheticCache(wide.model, .text(64, seed: 2))
        #expect { try write(other, as: .video("other"), to: store) } throws: { ($0 as? StoreError)?.code == .quotaExceeded }
        #expect(try store.statistics().usage.refusedBytes > 0)
        try expectSound(store)
    }
}
