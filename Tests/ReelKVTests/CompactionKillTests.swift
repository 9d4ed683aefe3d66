import Dispatch
import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Compactions killed at random moments. The sequences that are there from the start are never deleted, but lie between others that are, so
/// that they move all the time.
@Suite("Killed compactions")
struct CompactionKillTests {
    private static let model = ModelSpec.small(layers: 2, heads: 2, dim: 64)
    private static let killCount = 100
    private static let permanent = 0..<5

    private static func cache(_ number: Int) -> SyntheticCache {
        SyntheticCache(model, .text(70, seed: UInt64(9000 + number)))
    }

    private static func name(_ number: Int) -> SequenceName { .session("k\(number)") }

    @Test("Whenever a compaction is killed, every sequence is there, bit for bit", .timeLimit(.minutes(30)))
    func kills() async throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        do {
            let store = try makeStore(in: folder, Self.model, pageTokens: 32, volumeBytesMax: 1 << 20)
            for number in Self.permanent { try write(Self.cache(number), as: Self.name(number), to: store) }
        }
        var seedSource = SystemRandomNumberGenerator()
        let seed = seedSource.next()
        print("killed compactions: seed \(seed)")
        for round in 0..<Self.killCount {
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String, seed = seed &+ UInt64(round) as UInt64] in
                try CompactionKillTests.work(path, seed: seed)
            }
            let store = try Store(opening: path)
            try check(store, "seed \(seed), kill \(round)")
        }
        let store = try Store(opening: path)
        #expect(try store.statistics().compactedVolumes > 0)
        for info in try store.sequences(.session) where Int(info.name.name.dropFirst()).map(Self.permanent.contains) == false {
            try store.remove(info.name)
        }
        var options = CompactionOptions()
        options.targetRatio = 1
        options.unfinishedOlderThan = 0
        let report = try store.compact(options)
        #expect(Double(report.liveBytes) * 1.5 > Double(fileSizes(path + "/volumes").values.reduce(0, +)))
        try check(store, "after all")
    }

    /// Writes, deletes and compacts until it is killed.
    private static func work(_ path: String, seed: UInt64) throws {
        var random = SeededGenerator(seed)
        let delay = UInt32.random(in: 0..<60_000, using: &random)
        let store = try Store(opening: path)
        // only now, however slow the machine is
        let isThere = try store.sequences(.session).contains { $0.name == name(10) }
        if isThere { try store.remove(name(10)) } else { try write(cache(10), as: name(10), to: store) }
        DispatchQueue.global().async {
            usleep(delay)
            kill(getpid(), SIGKILL)
        }
        var options = CompactionOptions()
        options.targetRatio = 1
        options.unfinishedOlderThan = 0
        while true {
            let number = Int.random(in: 10..<16, using: &random)
            let isThere = try store.sequences(.session).contains { $0.name == name(number) }
            if isThere { try store.remove(name(number)) } else { try write(cache(number), as: name(number), to: store) }
            if Bool.random(using: &random) {
                _ = try store.compact(options)
            } else {
                for _ in 0..<4 {
                    _ = try store.compactStep(bytesMax: Int.random(in: 1..<100_000, using: &random), deadShareMin: 0)
                }
            }
        }
    }

    private func check(_ store: Store, _ place: String) throws {
        let report = try store.verify()
        #expect(report.problems.map { "\($0.kind) \($0.subject): \($0.message)" } == [], "\(place)")
        #expect(report.quarantined == 0, "\(place)")
        let names = try store.sequences(.session).map(\.name)
        #expect(Set(names).isSuperset(of: Self.permanent.map(Self.name)), "\(place)")
        for name in names {
            let number = try #require(Int(name.name.dropFirst()))
            let cache = Self.cache(number)
            let prefix = try store.prefix(of: name)
            #expect(prefix.tokenCount == 70, "\(name), \(place)")
            for (layer, bytes) in try restored(store, prefix).enumerated() {
                #expect(bytes == cache.bytes(layer: layer, 0..<70), "\(name), layer \(layer), \(place)")
            }
        }
    }
}
