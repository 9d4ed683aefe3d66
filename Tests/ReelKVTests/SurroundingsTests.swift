import KVCodec
import LMDB
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What other programs, people and the system do to a store's files and to its process.
@Suite("Foreign and exchanged files, stale locks, limits of the system", .timeLimit(.minutes(10)))
struct SurroundingsTests {
    private let folder = TemporaryFolder()
    private let model = ModelSpec.small()

    private var path: String { folder.path + "/store" }

    private func cache(_ seed: Int) -> SyntheticCache { SyntheticCache(model, .text(200, seed: UInt64(seed))) }

    /// Stores that are closed again.
    private func fill(_ folder: TemporaryFolder, _ seeds: Range<Int>) throws {
        let store = try makeStore(in: folder, model)
        for seed in seeds { try write(cache(seed), as: .video("v\(seed)"), to: store) }
    }

    /// Whatever is found is what was stored, by name and by tokens.
    ///
    /// - Returns: how many of the videos are whole.
    private func whole(_ seeds: Range<Int>, in store: Store) throws -> Int {
        var count = 0
        for seed in seeds {
            let cache = cache(seed)
            for find in [
                { try store.prefix(of: .video("v\(seed)")) }, { try store.longestPrefix(of: cache.tokens, model: "small") },
            ] {
                do {
                    let prefix = try find()
                    for (layer, bytes) in try restored(store, prefix).enumerated() where prefix.tokenCount > 0 {
                        #expect(bytes == cache.bytes(layer: layer, 0..<prefix.tokenCount))
                    }
                    if prefix.tokenCount == cache.tokens.count { count += 1 }
                } catch let error as StoreError where [.notFound, .pageUnavailable, .damaged].contains(error.code) {}
            }
        }
        return count / 2
    }

    private func exchange(_ one: String, _ other: String) throws {
        let bytes = try readFile(one)
        try writeFile(one, with: try readFile(other))
        try writeFile(other, with: bytes)
    }

    // MARK: - Files

    @Test("An index of another store finds nothing in this one's volumes; with its own one all is there again")
    func foreignIndex() throws {
        let other = TemporaryFolder()
        try fill(folder, 0..<3)
        // the same names, volumes and pages at the same places, and other tokens
        let foreign = try makeStore(in: other, model, volumeBytesMax: 1 << 20)
        for seed in 0..<3 { try write(cache(seed + 10), as: .video("v\(seed)"), to: foreign) }
        let own = try readFile(path + "/index.mdb")
        try writeFile(path + "/index.mdb", with: try readFile(other.path + "/store/index.mdb"))
        do {
            let store = try Store(opening: path)
            #expect(try !store.verify().isSound)
            for seed in 0..<3 {
                for find in [
                    { try store.prefix(of: .video("v\(seed)")) },
                    { try store.longestPrefix(of: cache(seed).tokens, model: "small") },
                    { try store.longestPrefix(of: cache(seed + 10).tokens, model: "small") },
                ] {
                    do {
                        let prefix = try find()
                        guard prefix.tokenCount > 0 else { continue }
                        _ = try restored(store, prefix)
                        Issue.record("pages of another store are restored")
                    } catch let error as StoreError { #expect(error.code == .pageUnavailable) }
                }
            }
        } catch let error as StoreError { #expect(error.code == .damaged) }
        try writeFile(path + "/index.mdb", with: own)
        let store = try Store(opening: path)
        #expect(try whole(0..<3, in: store) == 3)
        try expectSound(store)
    }

    @Test("Volumes that take each other's names are never read for one another")
    func exchangedVolumes() throws {
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let caches = (0..<6).map { SyntheticCache(model, .text(200, seed: UInt64($0))) }
        do {
            let store = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
            for (number, cache) in caches.enumerated() { try write(cache, as: .video("v\(number)"), to: store) }
        }
        let volumes = TemporaryFolder.names(path + "/volumes").filter { $0.hasSuffix(".mdb") }.map { path + "/volumes/" + $0 }
        try #require(volumes.count >= 2)
        try exchange(volumes[0], volumes[1])
        do {
            let store = try Store(opening: path)
            var wrong = 0
            for (number, cache) in caches.enumerated() {
                do {
                    let prefix = try store.prefix(of: .video("v\(number)"))
                    #expect(try restored(store, prefix)[1] == cache.bytes(layer: 1, 0..<prefix.tokenCount))
                } catch let error as StoreError {
                    #expect(error.code == .pageUnavailable || error.code == .damaged)
                    wrong += 1
                }
            }
            #expect(wrong > 0)
            #expect(try !store.verify().isSound || store.verify().quarantined > 0)
        }
        // as it was
        try exchange(volumes[0], volumes[1])
        let store = try Store(opening: path)
        _ = try store.repair()
        try expectSound(store)
    }

    // MARK: - Locks

    @Test("Locks that nobody holds any more, and what else such files may hold, keep nobody out")
    func staleLocks() throws {
        try fill(folder, 0..<2)
        for name in ["compaction.lock", "space.lock", "scrub.lock"] {
            try writeFile(path + "/" + name, with: Array("4711 held by a process of another machine".utf8))
        }
        try writeFile(path + "/leases/4711", with: Array(repeating: 0xA5, count: 4096))
        let store = try Store(opening: path)
        #expect(try whole(0..<2, in: store) == 2)
        _ = try store.compact()
        _ = try store.evict(to: 1 << 30)
        #expect(try store.scrub().damaged == 0)
        _ = try store.repair()
        try write(cache(2), as: .video("v2"), to: store)
        #expect(try whole(0..<3, in: store) == 3)
    }

    @Test("A copy of a store that was made while processes wrote and read has their locks, and opens all the same")
    func copiedLocks() async throws {
        try fill(folder, 0..<2)
        let copy = TemporaryFolder()
        let (path, target) = (path, copy.path + "/store")
        await #expect(processExitsWith: .success) { [path = path as String, target = target as String] in
            // the index is being written, and read, while its files are copied; none of it ends
            let environment = try Environment.open(at: path + "/index.mdb")
            try environment.write { _ in
                try environment.read { _ in
                    for name in ["identity", "index.mdb", "index.mdb-lock"] {
                        try writeFile(target + "/" + name, with: try readFile(path + "/" + name), makingFolder: true)
                    }
                    for name in TemporaryFolder.names(path + "/volumes") {
                        try writeFile(
                            target + "/volumes/" + name, with: try readFile(path + "/volumes/" + name), makingFolder: true)
                    }
                }
                exit(0)
            }
        }
        let store = try Store(opening: target)
        #expect(try whole(0..<2, in: store) == 2)
        try write(cache(2), as: .video("v2"), to: store)
        #expect(try whole(0..<3, in: store) == 3)
        try expectSound(store)
    }

    // MARK: - Limits

    @Test("When all places for readers are taken, a read is an error that says so, and works once there is one")
    func readersFull() throws {
        try fill(folder, 0..<1)
        let store = try Store(opening: path)
        let page = try #require(try store.pages().first)
        /// - Returns: how many reads there were at once.
        func hold(_ depth: Int) throws -> Int {
            do { return try store.withImage(of: page) { _ in try hold(depth + 1) } } catch let error as StoreError {
                #expect(error.code == .inputOutput && error.message.contains("places for readers"), "\(error)")
                return depth
            }
        }
        #expect(try hold(0) > 100)
        #expect(try whole(0..<1, in: store) == 1)
        try expectSound(store)
    }

    @Test("A volume that cannot be opened for want of file descriptors is no damage: nothing is quarantined")
    func noFileDescriptors() async throws {
        try fill(folder, 0..<2)
        await #expect(processExitsWith: .success) { [path = path as String] in
            let store = try Store(opening: path)
            var limit = rlimit()
            getrlimit(fileDescriptorLimit, &limit)
            let before = limit
            let next = dup(0)
            close(next)
            limit.rlim_cur = rlim_t(next)
            try #require(setrlimit(fileDescriptorLimit, &limit) == 0)
            let found = try? store.verify(depth: .tensors, quarantining: true)
            #expect(found?.isSound != true)
            let repaired = try? store.repair()
            #expect(repaired?.found.problems.isEmpty != true)
            limit = before
            try #require(setrlimit(fileDescriptorLimit, &limit) == 0)
            let report = try store.verify()
            #expect(report.isSound && report.quarantined == 0)
            #expect(try store.prefix(of: .video("v0")).tokenCount == 200)
        }
    }

    #if os(Linux)
        @Test(
            "Without address space for another volume a write is refused, what is stored is read, and writing goes on once there is some"
        )
        func addressSpace() async throws {
            // this process goes on with its volume, so that another one needs one of its own
            let writing = try makeStore(in: folder, model, volumeBytesMax: 1 << 30)
            defer { withExtendedLifetime(writing) {} }
            for seed in 0..<2 { try write(cache(seed), as: .video("v\(seed)"), to: writing) }
            await #expect(processExitsWith: .success) { [path = path as String] in
                let model = ModelSpec.small()
                let store = try Store(opening: path)
                let known = SyntheticCache(model, .text(200, seed: 0))
                let prefix = try store.prefix(of: .video("v0"))
                #expect(try restored(store, prefix)[0] == known.bytes(layer: 0, 0..<200))
                var limit = rlimit()
                getrlimit(__rlimit_resource_t(UInt32(RLIMIT_AS.rawValue)), &limit)
                let before = limit
                limit.rlim_cur = rlim_t(try mappedBytes() + 512 << 20)
                try #require(setrlimit(__rlimit_resource_t(UInt32(RLIMIT_AS.rawValue)), &limit) == 0)
                let new = SyntheticCache(model, .text(200, seed: 7))
                do {
                    try write(new, as: .video("new"), to: store)
                    Issue.record("there was room")
                } catch let error as StoreError { #expect(error.code == .inputOutput, "\(error.code.rawValue): \(error)") }
                #expect(try restored(store, prefix)[0] == known.bytes(layer: 0, 0..<200))
                limit = before
                try #require(setrlimit(__rlimit_resource_t(UInt32(RLIMIT_AS.rawValue)), &limit) == 0)
                try write(new, as: .video("new"), to: store)
                let match = try store.longestPrefix(of: new.tokens, model: "small")
                #expect(try restored(store, match)[1] == new.bytes(layer: 1, 0..<200))
                try expectSound(store)
            }
        }
    #endif
}

#if canImport(Glibc)
    private let fileDescriptorLimit = __rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue))
#else
    private let fileDescriptorLimit = RLIMIT_NOFILE
#endif

#if os(Linux)
    /// Bytes of address space that this process has mapped.
    private func mappedBytes() throws -> Int {
        let text = String(decoding: try readFile("/proc/self/statm"), as: UTF8.self)
        return try #require(text.split(separator: " ").first.flatMap { Int($0) }) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
#endif
