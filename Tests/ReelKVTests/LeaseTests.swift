import Dispatch
import KVCodec
import ReelKV
import Testing
import Locking

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Leases")
struct LeaseTests {
    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/store" }
    private var files: [String] { TemporaryFolder.names(path + "/leases") }

    private func code(_ body: () throws -> Void) -> StoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? StoreError)?.code
        }
    }

    /// A store with a video of 200 tokens, pages of 64.
    private func makeVideo() throws -> (store: Store, prefix: StoredPrefix, tip: Digest) {
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), .text(200, seed: 1)), as: .video("v"), to: store)
        let prefix = try store.prefix(of: .video("v"))
        return (store, prefix, try #require(try store.pages(of: prefix).last).chainHash)
    }

    @Test("A lease stands until the last one of its tip is released or let go")
    func counted() throws {
        let (store, prefix, tip) = try makeVideo()
        #expect(try store.leased().isEmpty && store.leases().isEmpty)
        let first = try store.lease(prefix)
        var second: Lease? = try Store(opening: path).lease(prefix)
        #expect(try store.leased() == [tip])
        let listed = try store.leases()
        #expect(listed.count == 1 && listed[0].chainHash == tip && listed[0].processID == UInt32(getpid()))
        #expect((0...60).contains(listed[0].heldSeconds))
        first.release()
        first.release()
        #expect(try store.leased() == [tip])
        withExtendedLifetime(second) {}
        second = nil
        #expect(try store.leased().isEmpty && store.leases().isEmpty)
    }

    @Test("A prefix that ends inside a node leases the node; an empty one leases nothing")
    func cut() throws {
        let (store, prefix, _) = try makeVideo()
        let match = try store.longestPrefix(of: TokenSequence.text(200, seed: 1)[0..<150], model: "small")
        #expect(match.tokenCount == 150)
        let lease = try store.lease(match)
        #expect(try store.leased() == [try store.pages(of: prefix)[2].chainHash])
        let empty = try store.longestPrefix(of: .text(10, seed: 2), model: "small")
        #expect(empty.tokenCount == 0)
        let nothing = try store.lease(empty)
        #expect(try store.leased().count == 1)
        withExtendedLifetime((lease, nothing)) {}
    }

    @Test("What is gone cannot be leased, and leaves no lease")
    func gone() throws {
        let (store, prefix, _) = try makeVideo()
        try store.remove(.video("v"))
        #expect(code { _ = try store.lease(prefix) } == .pageUnavailable)
        #expect(try store.leased().isEmpty)
    }

    @Test("Thousands of leases are held at once, and their file shrinks when they end", .timeLimit(.minutes(20)))
    func thousands() throws {
        let store = try makeStore(in: folder, pageTokens: 32)
        let sequences = (0..<3000).map { (name: "s\($0)", tokens: TokenSequence.text(32, seed: UInt64($0))) }
        try store.enterWithoutImages(sequences, model: "small")
        var random = SeededGenerator(7)
        var held: [String: Lease] = [:]
        var hashes: [String: Digest] = [:]
        for (name, tokens) in sequences {
            let prefix = try store.longestPrefix(of: tokens, model: "small")
            hashes[name] = try store.pages(of: prefix)[0].chainHash
            held[name] = try store.lease(prefix)
        }
        #expect(try store.leased() == Set(hashes.values))
        for (name, _) in sequences where Bool.random(using: &random) { held[name] = nil }
        for (name, tokens) in sequences where Int.random(in: 0..<4, using: &random) == 0 {
            held[name] = try store.lease(try store.longestPrefix(of: tokens, model: "small"))
        }
        #expect(try store.leased() == Set(held.keys.compactMap { hashes[$0] }))
        let file = path + "/leases/" + files[0]
        #expect(try readFile(file).count == 64 * 3001)
        held = [:]
        #expect(try store.leased().isEmpty)
        #expect(try readFile(file).count == 64)
    }

    @Test("A restore leases what it reads while it runs, a writer what it starts from until it has published")
    func implicit() throws {
        let (store, prefix, tip) = try makeVideo()
        _ = try restored(store, prefix) { _ in
            let leased = try store.leased()
            #expect(leased == [tip])
        }
        #expect(try store.leased().isEmpty)
        #expect(throws: CancellationError.self) { _ = try restored(store, prefix) { _ in throw CancellationError() } }
        #expect(try store.leased().isEmpty)

        let cache = SyntheticCache(.small(), .text(200, seed: 1) + .text(200, seed: 2))
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact, startingFrom: prefix)
        #expect(try store.leased() == [tip])
        try cache.append(200..<300, to: writer)
        #expect(try store.leased() == [tip])
        try writer.flush()
        #expect(try store.leased().isEmpty)
        try cache.append(300..<400, to: writer)
        try writer.finish()
        #expect(try store.leased().isEmpty)

        // pages that are stored already are leased from when they are found
        let again = try store.writer(for: .video("w"), model: "small", profile: .exact)
        try SyntheticCache(.small(), .text(200, seed: 1)).append(0..<130, to: again)
        #expect(try store.leased() == [try store.pages(of: prefix)[1].chainHash])
        again.cancel()
        #expect(try store.leased().isEmpty)
    }

    @Test("A flush that has returned holds nothing any more, however soon one looks")
    func flushed() throws {
        let (store, prefix, _) = try makeVideo()
        let cache = SyntheticCache(.small(), .text(200, seed: 1) + .text(100, seed: 2))
        for round in 0..<200 {
            let writer = try store.writer(for: .session("\(round)"), model: "small", profile: .exact, startingFrom: prefix)
            try cache.append(200..<300, to: writer)
            try writer.flush()
            #expect(try store.leased().isEmpty)
            if round % 2 == 0 { writer.cancel() }
        }
    }

    @Test("Another process's leases are seen while it lives, and lapse when it is killed", .timeLimit(.minutes(20)))
    func killed() async throws {
        let (store, prefix, tip) = try makeVideo()
        let (ready, die) = (folder.path + "/ready", folder.path + "/die")
        async let child = #expect(processExitsWith: .signal(SIGKILL)) {
            [path = path as String, ready = ready as String, die = die as String] in
            let store = try Store(opening: path)
            let lease = try store.lease(try store.prefix(of: .video("v")))
            fclose(fopen(ready, "w"))
            while access(die, F_OK) != 0 { usleep(1000) }
            withExtendedLifetime(lease) {}
            kill(getpid(), SIGKILL)
        }
        // not a sleeping thread: the child's end is waited for on this one too
        while access(ready, F_OK) != 0 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(try store.leased() == [tip])
        let own = try store.lease(prefix)
        #expect(files.count == 2)
        #expect(Set(try store.leases().map(\.processID)).count == 2)
        own.release()
        #expect(try store.leased() == [tip])
        fclose(fopen(die, "w"))
        _ = await child
        // a reader changes nothing in the folder, but knows that it has lapsed
        #expect(files.count == 2)
        #expect(try Store(opening: path, access: .readOnly).leases().isEmpty)
        #expect(files.count == 2)
        #expect(try store.leased().isEmpty)
        #expect(files.count == 1)
    }

    @Test("A process that ends in peace leaves no file")
    func tidy() throws {
        try {
            let (store, prefix, _) = try makeVideo()
            let lease = try store.lease(prefix)
            #expect(files.count == 1)
            withExtendedLifetime(lease) {}
        }()
        #expect(files.isEmpty)
    }

    @Test("A store opened read-only takes no lease and changes nothing")
    func readOnly() async throws {
        _ = try makeVideo()
        await #expect(processExitsWith: .success) { [path = path as String] in
            let store = try Store(opening: path, access: .readOnly)
            let prefix = try store.prefix(of: .video("v"))
            _ = try restored(store, prefix) { _ in
                guard TemporaryFolder.names(path + "/leases").isEmpty else { fatalError("a lease was taken") }
            }
            do {
                _ = try store.lease(prefix)
                fatalError("a lease was taken")
            } catch let error as StoreError where error.code == .readOnly {}
        }
    }

    @Test("A lease taken during an eviction waits for it and then knows what is left")
    func eviction() throws {
        let (store, prefix, tip) = try makeVideo()
        try write(SyntheticCache(.small(), .text(100, seed: 2)), as: .video("other"), to: store)
        let other = try store.prefix(of: .video("other"))
        let seenBefore = try store.lease(other)
        let isEvicting = DispatchSemaphore(value: 0)
        let isLeasing = DispatchSemaphore(value: 0)
        let outcome = Mutex<StoreError.Code?>(nil)
        let leased = Mutex<Bool>(false)
        DispatchQueue.concurrentPerform(iterations: 2) { thread in
            if thread == 0 {
                do {
                    try store.excludingLeased { nodes in
                        #expect(!nodes.contains(tip) && nodes.count == 1)
                        isEvicting.signal()
                        isLeasing.wait()
                        usleep(20_000)  // only gives a lease that does not wait the time to go wrong
                        try store.remove(.video("v"))
                    }
                } catch { Issue.record(error) }
            } else {
                isEvicting.wait()
                isLeasing.signal()
                let found = code { _ = try store.lease(prefix) }
                outcome.withLock { $0 = found }
                let isLeft = code { _ = try store.lease(other) } == nil
                leased.withLock { $0 = isLeft }
            }
        }
        #expect(outcome.withLock { $0 } == .pageUnavailable)
        #expect(leased.withLock { $0 })
        withExtendedLifetime(seenBefore) {}
    }

    @Test("A slot that is torn protects what it seems to; foreign files are left alone, those of nobody go")
    func damage() throws {
        let (store, prefix, tip) = try makeVideo()
        let lease = try store.lease(prefix)
        let file = path + "/leases/" + files[0]
        var bytes = try readFile(file)
        #expect(bytes.count == 128)
        bytes[127] ^= 1
        // written in place: the file's lock is the process's own
        let descriptor = open(file, O_WRONLY)
        #expect(pwrite(descriptor, bytes + [1, 2, 3], bytes.count + 3, 0) == bytes.count + 3)
        close(descriptor)
        #expect(try store.leased() == [tip])
        #expect(try store.leases().isEmpty)
        for name in ["1-1", "77-88-2", "notes", "1-1.tmp", "-1", "1-1-1-1"] {
            try writeFile(path + "/leases/" + name, with: [1, 2, 3])
        }
        #expect(try store.leased() == [tip])
        #expect(Set(files).isSuperset(of: ["notes", "1-1.tmp", "-1", "1-1-1-1"]))
        #expect(files.count == 5)
        lease.release()
        #expect(try store.leased().isEmpty)
    }

    @Test("Where no lease can be written, a restore and a writer go on without")
    func unwritable() async throws {
        _ = try makeVideo()
        await #expect(processExitsWith: .success) { [path = path as String] in
            let store = try Store(opening: path)
            let prefix = try store.prefix(of: .video("v"))
            // as a full disk would: no file can grow any more
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit()
            getrlimit(resource(RLIMIT_FSIZE), &limit)
            limit.rlim_cur = 0
            setrlimit(resource(RLIMIT_FSIZE), &limit)
            do {
                _ = try store.lease(prefix)
                fatalError("a lease was written")
            } catch is StoreError {}
            let cache = SyntheticCache(.small(), .text(200, seed: 1))
            guard try restored(store, prefix)[1] == cache.bytes(layer: 1, 0..<200), try store.leased().isEmpty else {
                fatalError("other bytes")
            }
            let writer = try store.writer(for: .session("s"), model: "small", profile: .exact, startingFrom: prefix)
            limit.rlim_cur = limit.rlim_max
            setrlimit(resource(RLIMIT_FSIZE), &limit)
            let longer = SyntheticCache(.small(), cache.tokens + .text(50, seed: 9))
            try longer.append(200..<250, to: writer)
            try writer.finish()
        }
        #expect(try Store(opening: path).prefix(of: .session("s")).tokenCount == 250)
    }

    @Test("A store made before there were leases, or whose folder of them is gone, gets one")
    func noFolder() throws {
        try { _ = try makeVideo() }()
        #expect(rmdir(path + "/leases") == 0)
        let store = try Store(opening: path)
        let prefix = try store.prefix(of: .video("v"))
        let tip = try #require(try store.pages(of: prefix).last).chainHash
        #expect(try store.leased().isEmpty && store.leases().isEmpty)
        let lease = try store.lease(prefix)
        #expect(try store.leased() == [tip])
        var status = stat()
        #expect(stat(path + "/leases", &status) == 0 && status.st_mode & 0o777 == 0o700)
        #expect(stat(path + "/leases/" + files[0], &status) == 0 && status.st_mode & 0o777 == 0o600)
        withExtendedLifetime(lease) {}
    }

    #if os(Linux)
        @Test("A forked child neither releases its parent's leases nor takes any in its name")
        func fork() async throws {
            _ = try makeVideo()
            await #expect(processExitsWith: .success) { [path = path as String] in
                let store = try Store(opening: path)
                let prefix = try store.prefix(of: .video("v"))
                let lease = try store.lease(prefix)
                let child = Glibc.fork()
                if child == 0 {
                    lease.release()
                    do {
                        _ = try store.lease(prefix)
                        _exit(1)
                    } catch { _exit((error as? StoreError)?.code == .forked ? 0 : 2) }
                }
                var status: Int32 = -1
                #expect(waitpid(child, &status, 0) == child && status == 0)
                #expect(try store.leased().count == 1)
                withExtendedLifetime(lease) {}
            }
        }
    #endif
}

/// glibc's `getrlimit` takes an enumeration, others an integer.
#if canImport(Glibc)
    private func resource(_ value: __rlimit_resource) -> __rlimit_resource_t { __rlimit_resource_t(value.rawValue) }
#else
    private func resource(_ value: Int32) -> Int32 { value }
#endif
