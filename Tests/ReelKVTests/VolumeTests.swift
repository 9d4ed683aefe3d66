import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Volumes between processes")
struct VolumeTests {
    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/store" }
    private var volumeFiles: [String] { TemporaryFolder.names(path + "/volumes") }

    @Test("A volume that its process left almost full goes when nothing lives in it, and so does one that was barely begun")
    func leftBehind() throws {
        let model = ModelSpec.small(layers: 4, heads: 2, dim: 64)
        var names: [SequenceName] = []
        for fill in [950_000, 100_000] {
            let store = try names.isEmpty ? makeStore(in: folder, model, volumeBytesMax: 1 << 20) : Store(opening: path)
            while try store.statistics().volumes.last.map({ $0.fileBytes }) ?? 0 < fill {
                names.append(.video("v\(names.count)"))
                try write(SyntheticCache(model, .text(32, seed: UInt64(names.count))), as: names[names.count - 1], to: store)
            }
            #expect(try store.statistics().volumes.allSatisfy { $0.fileBytes < 1 << 20 })
        }
        let store = try Store(opening: path)
        for name in names { try store.remove(name) }
        #expect(try store.statistics().volumes.isEmpty)
        #expect(volumeFiles.isEmpty)
        try write(SyntheticCache(model, .text(32, seed: 1)), as: .video("again"), to: store)
        try expectSound(store)
    }

    @Test("Files that a crash left among the volumes go, what another process writes stays")
    func orphans() throws {
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), .text(100, seed: 1)), as: .video("v"), to: store)
        try write(SyntheticCache(.small(), .text(100, seed: 2)), as: .video("w"), to: store)
        for name in ["000000aa.mdb", "000000aa.mdb-lock", "000000ab.mdb-lock"] {
            fclose(fopen(path + "/volumes/" + name, "w"))
        }
        try store.remove(.video("w"))
        #expect(volumeFiles == ["00000001.mdb", "00000001.mdb-lock"])
        try expectSound(store)
    }

    @Test("Processes that write, delete and take volumes over from each other lose nothing", .timeLimit(.minutes(20)))
    func handingOver() async throws {
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        _ = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
        async let first: Void = Self.writeAndDelete(path, worker: 1)
        async let second: Void = Self.writeAndDelete(path, worker: 2)
        async let third: Void = Self.writeAndDelete(path, worker: 3)
        async let fourth: Void = Self.writeAndDelete(path, worker: 4)
        _ = await (first, second, third, fourth)
        let store = try Store(opening: path)
        #expect(try store.sequences(.session).count == 4)
        try expectSound(store)
        for info in try store.sequences(.session) { try store.remove(info.name) }
        #expect(try store.statistics().volumes.isEmpty)
        #expect(volumeFiles.isEmpty)
    }

    /// Opens the store anew for every sequence, so that volumes are left behind and taken over all the time.
    private static func writeAndDelete(_ path: String, worker: Int) async {
        await #expect(processExitsWith: .success) { [path = path as String, worker = worker as Int] in
            let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
            for round in 0..<25 {
                let store = try Store(opening: path)
                let cache = SyntheticCache(model, .text(150, seed: UInt64(1000 * worker + round)))
                try write(cache, as: .session("s\(worker)-\(round)"), to: store)
                let match = try store.longestPrefix(of: cache.tokens, model: "small")
                guard try restored(store, match)[3] == cache.bytes(layer: 3, 0..<150) else { fatalError("other bytes") }
                if round > 0 { try store.remove(.session("s\(worker)-\(round - 1)")) }
            }
        }
    }
}
