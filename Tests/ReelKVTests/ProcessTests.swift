import Dispatch
import KVCodec
import ReelKV
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Several threads and processes")
struct ProcessTests {
    @Test("Threads write their own sessions and read each other's at once")
    func threads() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let video = SyntheticCache(.small(), .video(.of(1), frames: 4))
        try write(video, as: .video("v"), to: store)
        let caches = (0..<6).map { SyntheticCache(.small(), video.tokens + .text(150, seed: UInt64($0))) }
        DispatchQueue.concurrentPerform(iterations: 6) { index in
            do {
                for turn in 0..<3 {
                    let start = turn == 0 ? try store.longestPrefix(of: video.tokens, model: "small") : nil
                    let writer = try store.writer(
                        for: .session("s\(index)"), model: "small", profile: .exact, startingFrom: start)
                    try caches[index].append(writer.tokenCount..<video.tokens.count + 50 * (turn + 1), to: writer)
                    try writer.finish()
                    let match = try store.longestPrefix(of: caches[index].tokens, model: "small")
                    #expect(match.tokenCount == video.tokens.count + 50 * (turn + 1))
                    #expect(try restored(store, match)[1] == caches[index].bytes(layer: 1, 0..<match.tokenCount))
                }
            } catch {
                Issue.record(error)
            }
        }
        #expect(try store.sequences(.session).count == 6)
        try expectSound(store)
    }

    @Test("Readers see whole sequences or none, whatever is deleted and written under them")
    func readersAndDeletion() throws {
        let folder = TemporaryFolder()
        let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
        let store = try makeStore(in: folder, model, volumeBytesMax: 1 << 20)
        let caches = (0..<3).map { SyntheticCache(model, .text(150, seed: UInt64($0))) }
        let isDone = Atomic(false)
        DispatchQueue.concurrentPerform(iterations: 3) { thread in
            do {
                if thread == 0 {
                    defer { isDone.store(true, ordering: .relaxed) }
                    for round in 0..<30 {
                        try write(caches[round % 3], as: .session("s\(round)"), to: store)
                        if round > 0 { try store.remove(.session("s\(round - 1)")) }
                    }
                    return
                }
                for round in 0... {
                    let cache = caches[round % 3]
                    let match = try store.longestPrefix(of: cache.tokens, model: "small")
                    do {
                        #expect(try restored(store, match)[2] == cache.bytes(layer: 2, 0..<match.tokenCount))
                    } catch let error as StoreError where error.code == .pageUnavailable {
                        // deleted since it was matched
                    }
                    if isDone.load(ordering: .relaxed) { break }
                }
            } catch {
                Issue.record(error)
            }
        }
        #expect(try restored(store, try store.prefix(of: .session("s29")))[2] == caches[29 % 3].bytes(layer: 2, 0..<150))
        let report = try store.verify()
        #expect(report.isSound && report.quarantined == 0)
    }

    @Test("Another process writes while this one reads and writes")
    func processes() async throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let video = SyntheticCache(.small(), .video(.of(1), frames: 6))
        try write(video, as: .video("v"), to: store)
        let path = folder.path + "/store"
        async let child = #expect(processExitsWith: .success) { [path = path as String] in
            let store = try Store(opening: path)
            for index in 0..<10 {
                let tokens = TokenSequence.video(.of(1), frames: 6) + .text(90, seed: UInt64(100 + index))
                let cache = SyntheticCache(.small(), tokens)
                try write(
                    cache, as: .session("child\(index)"), to: store,
                    startingFrom: try store.longestPrefix(of: tokens, model: "small"))
                let match = try store.longestPrefix(of: tokens, model: "small")
                guard try restored(store, match)[0] == cache.bytes(layer: 0, 0..<tokens.count) else {
                    fatalError("the child read something else than it wrote")
                }
            }
        }
        for index in 0..<10 {
            let cache = SyntheticCache(.small(), video.tokens + .text(90, seed: UInt64(200 + index)))
            try write(
                cache, as: .session("parent\(index)"), to: store, startingFrom: try store.prefix(of: .video("v")))
            let match = try store.longestPrefix(of: cache.tokens, model: "small")
            #expect(try restored(store, match)[0] == cache.bytes(layer: 0, 0..<cache.tokens.count))
        }
        _ = await child
        #expect(try store.sequences(.session).count == 20)
        // each process had a volume of its own, and each reads the other's
        let tokens = TokenSequence.video(.of(1), frames: 6) + .text(90, seed: 105)
        let match = try store.longestPrefix(of: tokens, model: "small")
        #expect(try restored(store, match)[0] == SyntheticCache(.small(), tokens).bytes(layer: 0, 0..<tokens.count))
        #expect(try store.statistics().volumes.count == 2)
        try expectSound(store)
    }

    @Test("A process that dies while it writes leaves what it had acknowledged, and its volume is taken over")
    func deadWriter() async throws {
        let folder = TemporaryFolder()
        _ = try makeStore(in: folder)
        let path = folder.path + "/store"
        await #expect(processExitsWith: .failure) { [path = path as String] in
            let store = try Store(opening: path)
            let cache = SyntheticCache(.small(), .video(.of(1), frames: 8))
            try write(SyntheticCache(.small(), .text(100, seed: 1)), as: .session("finished"), to: store)
            let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
            try cache.append(0..<400, to: writer)
            try writer.flush()
            fatalError("killed on purpose")
        }
        let store = try Store(opening: path)
        #expect(try store.prefix(of: .session("finished")).tokenCount == 100)
        #expect(try store.sequences(.video).isEmpty)
        let cache = SyntheticCache(.small(), .video(.of(1), frames: 8))
        // 6 full pages of 64 were flushed
        #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == 384)
        try expectSound(store)
        try write(cache, as: .video("v"), to: store)
        #expect(try store.sequences(.video, building: true).count == 1)
        #expect(try restored(store, try store.prefix(of: .video("v")))[0] == cache.bytes(layer: 0, 0..<cache.tokens.count))
        #expect(try store.statistics().volumes.count == 1)
        try expectSound(store)
    }

    #if os(Linux)
        @Test("A forked child is told to open the store anew, and can")
        func fork() async throws {
            let folder = TemporaryFolder()
            await #expect(processExitsWith: .success) { [path = folder.path + "/store" as String] in
                var options = Store.Options()
                options.pageTokens = 32
                let store = try Store.create(at: path, options: options)
                try store.addModel(.small())
                let cache = SyntheticCache(.small(), .text(100, seed: 3))
                try write(cache, as: .session("parent"), to: store)
                let child = Glibc.fork()
                if child == 0 { _exit(ProcessTests.runForkedChild(store, path)) }
                var status: Int32 = -1
                #expect(waitpid(child, &status, 0) == child)
                #expect(status == 0, "the child failed at step \(status >> 8)")
                #expect(try store.prefix(of: .session("child")).tokenCount == 50)
                try write(cache, as: .session("again"), to: store)
                let report = try store.verify()
                #expect(report.isSound)
            }
        }

        /// - Returns: 0, or the number of the step that failed: a forked child cannot record issues.
        private static func runForkedChild(_ inherited: Store, _ path: String) -> Int32 {
            do {
                _ = try inherited.models()
                return 1
            } catch {
                guard (error as? StoreError)?.code == .forked else { return 2 }
            }
            do {
                let own = try Store(opening: path)
                let cache = SyntheticCache(.small(), .text(50, seed: 4))
                try write(cache, as: .session("child"), to: own)
                let whole = SyntheticCache(.small(), .text(100, seed: 3))
                guard try restored(own, try own.prefix(of: .session("parent")), threads: 1)[0] == whole.bytes(layer: 0, 0..<100)
                else { return 3 }
            } catch {
                return 4
            }
            return 0
        }
    #endif

    @Test("A store opened twice in one process is one store")
    func twice() throws {
        let folder = TemporaryFolder()
        let first = try makeStore(in: folder)
        let second = try Store(opening: folder.path + "/store")
        let a = SyntheticCache(.small(), .text(100, seed: 1))
        let b = SyntheticCache(.small(), .text(100, seed: 2))
        try write(a, as: .session("a"), to: first)
        try write(b, as: .session("b"), to: second)
        #expect(try restored(first, try first.prefix(of: .session("b")))[0] == b.bytes(layer: 0, 0..<100))
        #expect(try restored(second, try second.prefix(of: .session("a")))[0] == a.bytes(layer: 0, 0..<100))
        try expectSound(first)
    }
}
