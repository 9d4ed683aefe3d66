import KVCodec
import ReelKV
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Shrinking the index")
struct IndexShrinkingTests {
    /// Enters sessions of many pages into the index and removes all but a few, so that most of it is free.
    private func fillAndEmpty(_ store: Store, seed: UInt64) throws {
        let sequences = (0..<40).map { (name: "bulk\($0)", tokens: TokenSequence.text(640, seed: seed + UInt64($0))) }
        try store.enterWithoutImages(sequences, model: "small")
        for (name, _) in sequences { try store.remove(.session(name)) }
    }

    private func indexFiles(_ folder: TemporaryFolder) -> [String] {
        TemporaryFolder.names(folder.path + "/store").filter { $0.hasPrefix("index") }.sorted()
    }

    @Test("A shrunk index holds what it held, in a smaller file that every later opening finds")
    func content() throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        let cache = SyntheticCache(.small(), .text(300, seed: 1))
        do {
            let store = try makeStore(in: folder)
            try write(cache, as: .session("s"), to: store)
            for round in 0..<3 {
                try fillAndEmpty(store, seed: UInt64(1000 * (round + 1)))
                let before = try store.statistics()
                let sizes = try store.shrinkIndex()
                let after = try store.statistics()
                #expect(sizes.after < sizes.before / 2)
                #expect(before.indexBytes == sizes.before && after.indexBytes == sizes.after)
                #expect(after.tokens == before.tokens && after.sessions == 1)
                #expect(indexFiles(folder) == ["index.\(round + 2).mdb", "index.\(round + 2).mdb-lock"])
                #expect(try restored(store, try store.prefix(of: .session("s")))[0] == cache.bytes(layer: 0, 0..<300))
                try expectSound(store)
            }
            let bytes = try store.statistics().indexBytes
            #expect(try store.shrinkIndex(ifGaining: 1 << 20) == (bytes, bytes))
            #expect(indexFiles(folder).count == 2)
            // one store, whatever the index file is called
            try write(cache, as: .session("t"), to: try Store(opening: path))
            #expect(try store.sequences(.session).count == 2)
            let reader = try Store(opening: path, access: .readOnly)
            #expect { try reader.shrinkIndex() } throws: { ($0 as? StoreError)?.code == .readOnly }
        }
        #expect { try Store.create(at: path) } throws: { ($0 as? StoreError)?.code == .storeExists }
        let store = try Store(opening: path, access: .readOnly)
        #expect(try restored(store, try store.prefix(of: .session("t")))[1] == cache.bytes(layer: 1, 0..<300))
        try expectSound(store)
    }

    @Test("Another process writes and reads while the index is shrunk again and again, and nothing is lost")
    func processes() async throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let isOver = Done()
        let shrinking = Task.detached {
            var count = 0
            repeat {
                try store.shrinkIndex(ifGaining: 0)
                count += 1
                // others have something to do on this thread, too
                await Task.yield()
            } while !isOver.value
            return count
        }
        await #expect(processExitsWith: .success) { [path = folder.path + "/store" as String] in
            let store = try Store(opening: path)
            for index in 0..<40 {
                let cache = SyntheticCache(.small(), .text(100 + index, seed: UInt64(index)))
                try write(cache, as: .session("s\(index)"), to: store)
                let match = try store.longestPrefix(of: cache.tokens, model: "small")
                guard try restored(store, match)[0] == cache.bytes(layer: 0, 0..<cache.tokens.count) else {
                    fatalError("the child read something else than it wrote")
                }
                if index % 4 == 3 { try store.remove(.session("s\(index - 1)")) }
            }
        }
        isOver.set()
        #expect(try await shrinking.value > 0)
        #expect(try store.sequences(.session).count == 30)
        for index in 0..<40 where index % 4 != 2 {
            let cache = SyntheticCache(.small(), .text(100 + index, seed: UInt64(index)))
            let prefix = try store.prefix(of: .session("s\(index)"))
            #expect(try restored(store, prefix)[1] == cache.bytes(layer: 1, 0..<cache.tokens.count))
        }
        try expectSound(store)
        #expect(indexFiles(folder).count == 2)
    }

    /// Shared between tasks, which an `Atomic` alone cannot be.
    private final class Done: Sendable {
        private let flag = Atomic(false)

        var value: Bool { flag.load(ordering: .relaxed) }

        func set() { flag.store(true, ordering: .relaxed) }
    }
}
