import KVCodec
import ReelKV
import Testing

@Suite("Relaxed durability")
struct DurabilityTests {
    /// The files of a store, as a machine's disk may hold them after a crash.
    private struct Disk {
        var index: [(name: String, bytes: [UInt8])] = []
        var volumes: [(name: String, bytes: [UInt8])] = []

        init(of store: Store) throws {
            index = try Self.files(store.path)
            volumes = try Self.files(store.path + "/volumes")
        }

        private static func files(_ folder: String) throws -> [(name: String, bytes: [UInt8])] {
            try TemporaryFolder.names(folder).filter { $0.hasSuffix(".mdb") || $0 == "identity" }.map {
                ($0, try readFile(folder + "/" + $0))
            }
        }

        /// A store of one state's index and another's volumes.
        static func store(index: Disk, volumes: Disk, in folder: TemporaryFolder) throws -> Store {
            let path = folder.path + "/crashed"
            for (name, bytes) in index.index { try writeFile("\(path)/\(name)", with: bytes, makingFolder: true) }
            for (name, bytes) in volumes.volumes { try writeFile("\(path)/volumes/\(name)", with: bytes, makingFolder: true) }
            return try Store(opening: path, durability: .relaxed)
        }
    }

    private let kept = SyntheticCache(.small(), .text(200, seed: 1))
    private let newest = SyntheticCache(.small(), .text(150, seed: 2))
    private let other = SyntheticCache(.small(), .text(170, seed: 3))

    /// A store before and after its newest pages were written.
    private func states(in folder: TemporaryFolder) throws -> (before: Disk, after: Disk) {
        _ = try makeStore(in: folder)
        let store = try Store(opening: folder.path + "/store", durability: .relaxed)
        try write(kept, as: .video("kept"), to: store)
        let before = try Disk(of: store)
        try write(newest, as: .video("newest"), to: store)
        return (before, try Disk(of: store))
    }

    private func expectWhole(_ cache: SyntheticCache, in store: Store) throws {
        let match = try store.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == cache.tokens.count)
        let layers = try restored(store, match)
        for layer in 0..<2 { #expect(layers[layer] == cache.bytes(layer: layer, 0..<cache.tokens.count)) }
    }

    @Test("One process waits for the disk in one way")
    func opening() throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        _ = try makeStore(in: folder)
        let store = try Store(opening: path, durability: .relaxed)
        #expect(store.durability == .relaxed)
        #expect(try Store(opening: path).durability == .relaxed)
        let error = #expect(throws: StoreError.self) { try Store(opening: path, durability: .durable) }
        #expect(error?.code == .inUse)
        try write(kept, as: .video("v"), to: store)
        try store.sync()
        try expectWhole(kept, in: store)
        try expectSound(store)
    }

    @Test("A volume that lost its last commit misses its newest pages, also where others took their place")
    func volumeBehindIndex() throws {
        for takesPlace in [false, true] {
            let folder = TemporaryFolder()
            let (before, after) = try states(in: folder)
            let store = try Disk.store(index: after, volumes: before, in: folder)
            try expectWhole(kept, in: store)
            if takesPlace { try write(other, as: .video("other"), to: store) }
            let match = try store.longestPrefix(of: newest.tokens, model: "small")
            #expect(match.tokenCount == 150)
            let error = #expect(throws: StoreError.self) { try restored(store, match) }
            #expect(error?.code == .pageUnavailable)
            #expect(try store.longestPrefix(of: newest.tokens, model: "small").tokenCount < 150)
            if takesPlace { try expectWhole(other, in: store) }
            try write(newest, as: .session("anew"), to: store)
            try expectWhole(newest, in: store)
            try expectWhole(kept, in: store)
        }
    }

    @Test("An index that lost its last commit misses its newest pages")
    func indexBehindVolume() throws {
        let folder = TemporaryFolder()
        let (before, after) = try states(in: folder)
        let store = try Disk.store(index: before, volumes: after, in: folder)
        try expectSound(store)
        #expect(try store.longestPrefix(of: newest.tokens, model: "small").tokenCount == 0)
        try expectWhole(kept, in: store)
        try write(newest, as: .video("newest"), to: store)
        try expectWhole(newest, in: store)
        try expectSound(store)
    }

    @Test("Moved pages are where the index says, whichever of the two is older")
    func compaction() throws {
        let folder = TemporaryFolder()
        _ = try makeStore(in: folder, volumeBytesMax: 1 << 20)
        let store = try Store(opening: folder.path + "/store", durability: .relaxed)
        for seed in UInt64(10)..<20 {
            try write(SyntheticCache(.small(), .text(1000, seed: seed)), as: .video("v\(seed)"), to: store)
        }
        for seed in 10..<19 { try store.remove(.video("v\(seed)")) }
        _ = try store.compact()
        try expectWhole(SyntheticCache(.small(), .text(1000, seed: 19)), in: store)
        try expectSound(store)
    }
}
