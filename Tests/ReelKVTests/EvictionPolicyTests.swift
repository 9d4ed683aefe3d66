import KVCodec
import ReelKV
import Testing

/// The store's own check finds nothing but that there are no images.
private func expectIndexSound(_ store: Store, sourceLocation: SourceLocation = #_sourceLocation) throws {
    let problems = try store.verify().problems.filter {
        !$0.message.contains("is gone; its pages") && !$0.message.hasSuffix("is gone")
    }
    #expect(problems.prefix(3).map { "\($0.kind) \($0.subject): \($0.message)" } == [], sourceLocation: sourceLocation)
}

/// A store without images in which sequences are whole pages of random tokens.
private struct Room {
    let folder = TemporaryFolder()
    let replay: ReplayStore

    init(_ policy: EvictionPolicy, pages: Int) throws {
        replay = try ReplayStore(at: folder.path + "/store", policy: policy, capacity: pages)
    }

    static func text(_ seed: Int, pages: Int = 1) -> TokenSequence {
        .text(pages * ReplayStore.pageTokens, seed: UInt64(seed), vocabulary: .max)
    }

    func use(_ tokens: TokenSequence) throws { _ = try replay.replay(tokens) }

    /// Pages of a sequence that are stored; finding out counts as no use.
    func stored(_ tokens: TokenSequence) throws -> Int {
        try replay.store.longestPrefix(of: tokens, model: "replay", isCounted: false).tokenCount / ReplayStore.pageTokens
    }
}

@Suite("Eviction policies")
struct EvictionPolicyTests {
    @Test("lru drops what was unused for longest, fifo what came first")
    func recency() throws {
        for (policy, gone) in [(EvictionPolicy.lru, 1), (.fifo, 0)] {
            let room = try Room(policy, pages: 3)
            for seed in [0, 1, 2, 0, 3] { try room.use(Room.text(seed)) }
            #expect(try (0..<4).filter { try room.stored(Room.text($0)) == 0 } == [gone])
            try expectIndexSound(room.replay.store)
        }
    }

    @Test("lfu keeps through a scan what is used often, and knows it again after it was evicted")
    func frequency() throws {
        for (policy, kept) in [(EvictionPolicy.lru, 0), (.lfu, 10)] {
            let room = try Room(policy, pages: 20)
            for _ in 0..<5 { for seed in 0..<10 { try room.use(Room.text(seed)) } }
            for seed in 100..<180 { try room.use(Room.text(seed)) }
            #expect(try (0..<10).filter { try room.stored(Room.text($0)) == 1 }.count == kept)
        }
        // of two pages that are stored anew, the one that was used often before it was evicted stays
        let room = try Room(.lfu, pages: 8)
        for _ in 0..<12 { try room.use(Room.text(8)) }
        for _ in 0..<6 { try room.use(Room.text(9)) }
        #expect(try room.replay.store.evict { $0.pages < 1 }.pages == 1)
        for seed in [9, 200, 201, 202, 203, 204, 205, 206, 207] { try room.use(Room.text(seed)) }
        #expect(try room.stored(Room.text(9)) == 1)
        #expect(try room.stored(Room.text(200)) == 0)
    }

    @Test("lfu forgets what was used often once")
    func ageing() throws {
        let room = try Room(.lfu, pages: 8)
        for _ in 0..<15 { for seed in 0..<4 { try room.use(Room.text(seed)) } }
        for round in 0..<40 { for seed in 10..<20 { try room.use(Room.text(seed + round % 2)) } }
        #expect(try (0..<4).filter { try room.stored(Room.text($0)) == 1 }.isEmpty)
    }

    @Test("cost keeps the deep page of a long prefix, and pages of media, before a cheap one")
    func cost() throws {
        let long = Room.text(0, pages: 300)
        let media = TokenSequence.video(.of(3), frames: 1, tokensPerFrame: 32, textTokens: 0)
        for (policy, keepsDear) in [(EvictionPolicy.lru, false), (.cost, true)] {
            let room = try Room(policy, pages: 302)
            for tokens in [long, media, Room.text(1), Room.text(2)] { try room.use(tokens) }
            #expect(try (room.stored(long) == 300) == keepsDear)
            #expect(try room.stored(media) == 1)
            #expect(try (room.stored(Room.text(1)) == 0) == keepsDear)
            try expectIndexSound(room.replay.store)
        }
        let room = try Room(.cost, pages: 2)
        for tokens in [media, Room.text(1), Room.text(2)] { try room.use(tokens) }
        #expect(try room.stored(media) == 1)
        #expect(try room.stored(Room.text(1)) == 0)
    }

    @Test("cost does not keep for ever what was dear once")
    func inflation() throws {
        let room = try Room(.cost, pages: 40)
        let long = Room.text(0, pages: 20)
        for _ in 0..<3 { try room.use(long) }
        for seed in 1..<4_000 { try room.use(Room.text(seed)) }
        #expect(try room.stored(long) < 20)
    }

    /// Conversations that come back, each with a page more, in a flood of long requests that never do.
    private func hitsOfConversations(_ policy: EvictionPolicy) throws -> Int {
        let room = try Room(policy, pages: 400)
        var hits = 0
        for round in 0..<30 {
            for chat in 0..<20 {
                let tokens = Room.text(chat, pages: 40)[0..<(4 + round % 30) * ReplayStore.pageTokens]
                hits += try room.replay.replay(tokens)
                try room.use(Room.text(1_000 + round * 20 + chat, pages: 30))
            }
        }
        try expectIndexSound(room.replay.store)
        return hits
    }

    @Test(
        "adaptive learns to keep conversations that come back from a flood that does not, which lru does not; always the same way"
    )
    func conversations() throws {
        let adaptive = try hitsOfConversations(.adaptive)
        #expect(try hitsOfConversations(.lru) == 0)
        #expect(adaptive > 3_000)
        #expect(try hitsOfConversations(.adaptive) == adaptive)
    }

    // MARK: - What is learned

    private func tables(seed: UInt64) -> ReturnTables {
        var random = SeededGenerator(seed)
        var tables = ReturnTables()
        for _ in 0..<2_000 {
            let reuseClass = UInt8.random(in: 0...ReturnClass.tail, using: &random)
            let age = UInt64(1) << UInt64.random(in: 0...40, using: &random)
            if Bool.random(using: &random) {
                tables.noteReturn(of: reuseClass, after: age)
            } else {
                tables.noteLoss(of: reuseClass, at: age)
            }
        }
        return tables
    }

    private let none = [Float](repeating: 0, count: ReturnTables.cells)

    @Test("What was learned is read back as it was written")
    func tablesRoundTrip() throws {
        let tables = tables(seed: 1)
        let read = tables.encoded(advantage: -2.5, waiting: none).withUnsafeBytes { ReturnTables.decode($0) }
        #expect(try #require(read).tables == tables)
        #expect(try #require(read).advantage == -2.5)
        // nodes that wait count as lost sight of
        var waiting = none
        waiting[ReturnTables.cell(3, 100)] = 7
        let after = try #require(tables.encoded(advantage: 0, waiting: waiting).withUnsafeBytes { ReturnTables.decode($0) })
        #expect(after.tables.worth(waiting: none) == tables.worth(waiting: waiting))
    }

    @Test("Damaged tables are none")
    func damagedTables() {
        let bytes = tables(seed: 2).encoded(advantage: 1, waiting: none)
        for position in 0..<bytes.count where position < 80 || position % 97 == 0 {
            var damaged = bytes
            damaged[position] ^= 0x10
            #expect(damaged.withUnsafeBytes { ReturnTables.decode($0) } == nil, "byte \(position)")
        }
        for count in [0, 1, 63, 64, bytes.count - 1] {
            #expect(bytes[..<count].withUnsafeBytes { ReturnTables.decode($0) } == nil)
        }
        #expect((bytes + [0]).withUnsafeBytes { ReturnTables.decode($0) } == nil)
    }

    @Test("A node is worth more while its like come back, and less once they would have")
    func worth() {
        var tables = ReturnTables()
        for _ in 0..<5_000 {
            tables.noteReturn(of: 4, after: 100)
            tables.noteLoss(of: 0, at: 100_000)
        }
        let worth = tables.worth(waiting: none)
        let soon = worth[ReturnTables.cell(4, 50)]
        #expect(soon > 10 * worth[ReturnTables.cell(0, 50)])
        #expect(soon > 10 * worth[ReturnTables.cell(4, 1_000)])
        #expect(worth.allSatisfy { $0 > 0 && $0 <= 1 })
    }

    @Test("Ages fall into the bins that start below them", arguments: [1, 2, 3, 5, 6, 181, 182, 1 << 20, 1 << 31, UInt64.max])
    func bins(age: UInt64) {
        let bin = AgeBin.of(age)
        #expect(AgeBin.youngest(of: bin) <= age)
        if bin + 1 < AgeBin.count { #expect(age < AgeBin.youngest(of: bin + 1)) }
    }

    /// The sampler's shadow of `lru` against a list.
    @Test("The sampler knows what lru would hold")
    func shadow() {
        var sampler = ReturnSampler()
        var random = SeededGenerator(5)
        var list: [UInt64] = []  // the newest last
        var held: Set<UInt64> = []
        for step in 1...20_000 as ClosedRange<UInt64> {
            let key = UInt64.random(in: 0..<(step % 2 == 0 ? 40 : 400), using: &random)
            let seen = sampler.use(key, at: step) { uses, _ in UInt8(min(uses, 20)) }
            #expect((seen != nil) == list.contains(key))
            #expect(seen?.isHeld ?? false == held.contains(key))
            list.removeAll { $0 == key }
            list.append(key)
            held.insert(key)
            let room = step < 10_000 ? 100 : 60
            sampler.fit(to: room)
            while held.count > room, let oldest = list.first(where: { held.contains($0) }) { held.remove(oldest) }
        }
        #expect(sampler.waiting(at: 20_000).reduce(0, +) == Float(list.count))
    }

    @Test("A sampler stays within its bound, and lets go of the oldest")
    func samplerBound() {
        var sampler = ReturnSampler()
        var lost: [UInt64] = []
        let count = UInt64(ReturnSampler.capacity + 1_000)
        for key in 0..<count {
            _ = sampler.use(SeededGenerator.mix(key), at: key) { _, _ in 0 }
            sampler.trim { lost.append($0.key) }
        }
        #expect(lost == (0..<1_000).map { SeededGenerator.mix($0) })
        // in a store of so many nodes, one in 16 is watched
        sampler.fit(to: ReturnSampler.capacity * 2)
        #expect(sampler.waiting(at: count).reduce(0, +) < Float(ReturnSampler.capacity) / 8)
    }
}
