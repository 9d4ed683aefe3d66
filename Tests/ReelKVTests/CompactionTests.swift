import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Compaction")
struct CompactionTests {
    private let folder = TemporaryFolder()
    private var path: String { folder.path + "/store" }

    private func code(_ body: () throws -> Void) -> StoreError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? StoreError)?.code
        }
    }

    private var folderBytes: Int { fileSizes(path).values.reduce(0, +) }
    private var volumeBytes: Int { fileSizes(path + "/volumes").values.reduce(0, +) }

    @Test("Most of the folder comes back after most of the store was deleted, and what is left reads as before")
    func givesSpaceBack() throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        let before = folderBytes
        let report = try store.compact()
        #expect(report.volumesRemoved >= 4)
        #expect(report.folderBytesBefore == before && report.folderBytesAfter == folderBytes)
        #expect(Double(folderBytes) <= 1.2 * Double(report.liveBytes), "\(folderBytes) for \(report.liveBytes)")
        #expect(report.bytesFreed > before / 2)
        try Numbered.expectRight(left, in: store)
        try expectSound(store)
        let statistics = try store.statistics()
        #expect(statistics.copiedBytes == report.bytesCopied && statistics.compactedVolumes == report.volumesRemoved)
        #expect(statistics.volumes.reduce(0) { $0 + $1.liveBytes } == report.liveBytes)
        #expect(statistics.writeAmplification > 1 && statistics.writeAmplification < 1.2)
        // in the same process and after it
        try Numbered.write(1000..<1002, to: store)
        try Numbered.expectRight(left + [1000, 1001], in: try Store(opening: path))
    }

    @Test("A second compaction finds nothing to copy")
    func twice() throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        #expect(try store.compact(.to(1)).bytesCopied > 0)
        let files = fileSizes(path + "/volumes")
        let again = try store.compact(.to(1))
        #expect(again.bytesCopied == 0 && again.volumesRemoved == 0)
        #expect(fileSizes(path + "/volumes") == files)
        #expect(try store.compactStep(bytesMax: 1 << 20) == (0, 0))
        try Numbered.expectRight(left, in: store)
    }

    @Test("It copies no more than the target ratio asks for")
    func targetRatio() throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        let all = try store.compactionPlan(.to(1)).bytesToCopy
        let report = try store.compact(.to(4))
        #expect(Double(folderBytes) <= 4 * Double(report.liveBytes))
        #expect(report.bytesCopied > 0 && report.bytesCopied < all)
        #expect(Double(folderBytes) > 2 * Double(report.liveBytes))
        try Numbered.expectRight(left, in: store)
        #expect(try store.compact(.to(4)).bytesCopied == 0)
    }

    @Test("A plan changes nothing, and says what will be done")
    func plan() throws {
        let (store, _) = try Numbered.mostlyDead(in: folder)
        let files = fileSizes(path)
        let plan = try store.compactionPlan()
        #expect(fileSizes(path) == files)
        #expect(plan.folderBytes == folderBytes)
        #expect(plan.victims.allSatisfy { $0.deadBytes > $0.liveBytes && $0.fileBytes >= $0.deadBytes + $0.liveBytes })
        let report = try store.compact()
        #expect(report.bytesCopied == plan.bytesToCopy)
        #expect(report.volumesRemoved == plan.victims.count)
        #expect(abs(report.bytesFreed - plan.bytesToFree) < plan.bytesToFree / 10)
        #expect(report.liveBytes == plan.liveBytes)
    }

    @Test("Options that cannot be meant are refused")
    func options() throws {
        let store = try makeStore(in: folder)
        var options = CompactionOptions()
        options.targetRatio = 0.9
        #expect(code { _ = try store.compact(options) } == .invalidArgument)
        options = CompactionOptions()
        options.bytesPerSecondMax = 0
        #expect(code { _ = try store.compactionPlan(options) } == .invalidArgument)
        options = CompactionOptions()
        options.unfinishedOlderThan = -1
        #expect(code { _ = try store.compact(options) } == .invalidArgument)
    }

    // MARK: - Other processes

    @Test("Readers in another process get right answers all the while", .timeLimit(.minutes(20)))
    func readersElsewhere() async throws {
        let left: [Int]
        do { left = try Numbered.mostlyDead(in: folder).left }
        let ready = FileSign(path: folder.path + "/ready")
        let done = FileSign(path: folder.path + "/done")
        let copied = Aside { [path] in
            defer { done.give() }
            ready.wait()
            let store = try Store(opening: path)
            return try (0..<10).map { round in
                // makes what was copied before share its volume with dead pages once more
                try Numbered.write(500 + round..<502 + round, to: store)
                try Numbered.remove(500 + round..<502 + round, from: store)
                return try store.compact(.to(1)).bytesCopied
            }
        }
        await #expect(processExitsWith: .success) {
            [path = path as String, left = left as [Int], ready = ready.path as String, done = done.path as String] in
            let store = try Store(opening: path)
            while true {
                let isLast = FileSign(path: done).isGiven
                for number in left {
                    guard try Numbered.isRight(number, in: store) else { fatalError("\(number) is wrong") }
                    FileSign(path: ready).give()
                }
                if isLast { break }
            }
            guard try store.verify().quarantined == 0 else { fatalError("pages that only moved count as damaged") }
        }
        #expect(try await copied.result().allSatisfy { $0 > 0 })
        let store = try Store(opening: path)
        try Numbered.expectRight(left, in: store)
        try expectSound(store)
    }

    @Test("Writers in another process lose nothing", .timeLimit(.minutes(20)))
    func writerElsewhere() async throws {
        let left: [Int]
        do { left = try Numbered.mostlyDead(in: folder).left }
        let ready = FileSign(path: folder.path + "/ready")
        let done = FileSign(path: folder.path + "/done")
        let compactions = Aside { [path] in
            ready.wait()
            let store = try Store(opening: path)
            while !done.isGiven { _ = try store.compact(.to(1)) }
        }
        await #expect(processExitsWith: .success) {
            [path = path as String, ready = ready.path as String, done = done.path as String] in
            defer { FileSign(path: done).give() }
            for round in 0..<15 {
                // opened anew, so that volumes are left behind and taken over
                let store = try Store(opening: path)
                try Numbered.write([100 + 2 * round, 101 + 2 * round], to: store)
                try Numbered.remove([100 + 2 * round], from: store)
                FileSign(path: ready).give()
            }
        }
        done.give()
        ready.give()
        try await compactions.result()
        let store = try Store(opening: path)
        _ = try store.compact(.to(1))
        try Numbered.expectRight(left + (0..<15).map { 101 + 2 * $0 }, in: store)
        try expectSound(store)
        let live = try store.statistics().volumes.reduce(0) { $0 + $1.liveBytes }
        #expect(Double(volumeBytes) <= 1.2 * Double(live))
    }

    @Test("Of two compactions the second is told to wait", .timeLimit(.minutes(20)))
    func twoCompactors() async throws {
        do { _ = try Numbered.mostlyDead(in: folder) }
        let inside = FileSign(path: folder.path + "/inside")
        let go = FileSign(path: folder.path + "/go")
        let second = Aside { [path, self] in
            defer { go.give() }
            inside.wait()
            let store = try Store(opening: path)
            return code { _ = try store.compact() }
        }
        await #expect(processExitsWith: .success) {
            [path = path as String, inside = inside.path as String, go = go.path as String] in
            let store = try Store(opening: path)
            _ = try store.compact { _ in
                FileSign(path: inside).give()
                FileSign(path: go).wait()
            }
        }
        #expect(try await second.result() == .inUse)
        let store = try Store(opening: path)
        #expect(try store.compact().bytesCopied == 0)
        // nor twice in one process
        try Numbered.write(200..<203, to: store)
        try Numbered.remove(200..<202, from: store)
        var inner: StoreError.Code?
        _ = try store.compact(.to(1)) { _ in inner = code { _ = try store.compact() } }
        #expect(inner == .inUse)
        try expectSound(store)
    }

    // MARK: - Interruptions

    @Test("A compaction that is cancelled has lost nothing, and the next one goes on")
    func cancelled() throws {
        struct Cancelled: Error {}
        let (store, left) = try Numbered.mostlyDead(in: folder)
        var options = CompactionOptions()
        options.bytesPerSecondMax = 1  // one image a batch
        let all = try store.compactionPlan().bytesToCopy
        #expect(throws: Cancelled.self) { try store.compact(options) { _ in throw Cancelled() } }
        try Numbered.expectRight(left, in: store)
        try expectSound(store)
        let rest = try store.compact()
        #expect(rest.bytesCopied > 0 && rest.bytesCopied < all)
        try Numbered.expectRight(left, in: store)
        try expectSound(store)
    }

    #if os(Linux)
        @Test(
            "A full disk ends it with an error, and loses nothing; room for one volume is enough",
            .enabled(if: TinyFileSystem.isPossible, "mounting a small file system takes root's rights"))
        func fullDisk() throws {
            let disk = try #require(TinyFileSystem(byteCount: 64 << 20))
            var options = Store.Options()
            options.pageTokens = 64
            options.volumeBytesMax = 4 << 20
            let store = try Store.create(at: disk.path + "/store", options: options)
            try store.addModel(Numbered.model)
            try Numbered.write(0..<40, to: store)
            let left = Array(stride(from: 3, to: 40, by: 5))
            try Numbered.remove((0..<40).filter { !left.contains($0) }, from: store)
            let ballast = disk.path + "/ballast"
            try fill(ballast)
            #expect(code { _ = try store.compact() } == .noSpace)
            try Numbered.expectRight(left, in: store)
            try expectSound(store)
            var status = stat()
            #expect(stat(ballast, &status) == 0)
            #expect(truncate(ballast, status.st_size - 4 << 20) == 0)
            let report = try store.compact(.to(1.2))
            #expect(report.volumesRemoved >= 3)
            try Numbered.expectRight(left, in: store)
            try expectSound(store)
        }

        private func fill(_ path: String) throws {
            let file = open(path, O_WRONLY | O_CREAT, 0o600)
            defer { close(file) }
            let bytes = [UInt8](repeating: 1, count: 4096)
            while Glibc.write(file, bytes, bytes.count) > 0 {}
        }
    #endif

    // MARK: - Damage

    /// Flips a bit of a page's image, `offset` bytes behind its chain hash, wherever the volume keeps it.
    private func damage(_ number: Int, page: Int, offset: Int, in store: Store) throws {
        let page = try store.pages(of: try store.prefix(of: Numbered.name(number)))[page]
        let file = path + "/volumes/" + (try store.statistics().volumes.first { $0.id == page.volumeID }?.fileName ?? "")
        let needle = page.chainHash.bytes
        var bytes = try readFile(file)
        let start = try #require(
            bytes.indices.dropLast(32).first { bytes[$0] == needle[0] && Array(bytes[$0..<$0 + 32]) == needle })
        bytes[start + offset] ^= 0x10
        // in place: the file is open
        let descriptor = open(file, O_WRONLY)
        defer { close(descriptor) }
        #expect(pwrite(descriptor, [bytes[start + offset]], 1, off_t(start + offset)) == 1)
    }

    @Test(
        "A damaged page is not copied: it counts as absent, its volume goes, and it can be stored again",
        arguments: [0, 100_000])
    func damagedPage(offset: Int) throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        try damage(left[1], page: 0, offset: offset, in: store)
        let report = try store.compact(.to(1))
        #expect(report.damagedPages == 1)
        #expect(report.volumesUnreadable == 0 && report.volumesInUse == 0)
        #expect(Double(volumeBytes) <= 1.2 * Double(report.liveBytes))
        try expectSound(store)
        #expect(try store.verify().quarantined == 1)
        let lost = Numbered.cache(left[1])
        #expect(try store.longestPrefix(of: lost.tokens, model: "small").tokenCount == 0)
        #expect(try store.prefix(of: Numbered.name(left[1])).stop == .quarantined)
        try Numbered.expectRight(left.filter { $0 != left[1] }, in: store)
        // a page that nothing is left of can be listed, stored again, and deleted
        #expect(try store.pages().filter(\.isQuarantined).map(\.imageBytes) == [0])
        _ = try store.statistics()
        try write(lost, as: .video("again"), to: store)
        try Numbered.expectRight(left, in: store)
        #expect(try store.verify().quarantined == 0)
        try expectSound(store)
    }

    @Test("A sequence with a page that is lost can be deleted")
    func deletingLost() throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        try damage(left[0], page: 0, offset: 5000, in: store)
        _ = try store.compact(.to(1))
        try Numbered.remove(left, from: store)
        #expect(try store.statistics().tokens == 0)
        _ = try store.compact(.to(1))
        #expect(TemporaryFolder.names(path + "/volumes").isEmpty)
        try expectSound(store)
    }

    @Test("Of two encodings the damaged one goes, the other serves")
    func damagedEncoding() throws {
        let store = try makeStore(in: folder, Numbered.model, volumeBytesMax: 4 << 20)
        try Numbered.write(0..<3, to: store)
        try damage(1, page: 0, offset: 50_000, in: store)
        try write(Numbered.cache(1), as: .video("int8"), to: store, profile: try Profile.named("int8"))
        try Numbered.remove([0, 2], from: store)
        #expect(try store.compact(.to(1)).damagedPages == 1)
        let match = try store.longestPrefix(of: Numbered.cache(1).tokens, model: "small")
        #expect(match.tokenCount == Numbered.tokens)
        #expect(try store.pages(of: match)[0].profileID == Profile.named("int8").id)
        _ = try restored(store, match)
        #expect(try store.verify().quarantined == 0)
        try expectSound(store)
    }

    @Test("A volume that cannot be read stays as it is")
    func unreadableVolume() throws {
        do { _ = try Numbered.mostlyDead(in: folder) }
        let file = path + "/volumes/00000001.mdb"
        var bytes = try readFile(file)
        for index in 0..<8192 { bytes[index] = 0x55 }
        try writeFile(file, with: bytes)
        let store = try Store(opening: path)
        let report = try store.compact(.to(1))
        #expect(report.volumesUnreadable == 1 && report.volumesRemoved >= 3)
        while try store.compactStep(bytesMax: 1 << 20) != (0, 0) {}
        #expect(try readFile(file) == bytes)
        #expect(try store.verify().problems.contains { $0.kind == .volume })
    }

    // MARK: - Leftovers

    @Test("Images that were written and never published count as dead")
    func orphans() throws {
        let store = try makeStore(in: folder, Numbered.model, volumeBytesMax: 16 << 20)
        let cache = SyntheticCache(Numbered.model, .text(640, seed: 1))
        // neither sees the other's pages while they are encoded; the second one's are not needed then
        let writers = try ["a", "b"].map { try store.writer(for: .video($0), model: "small", profile: .exact) }
        for writer in writers { try cache.append(0..<640, to: writer) }
        for writer in writers { try writer.finish() }
        let volume = try #require(try store.statistics().volumes.first)
        #expect(volume.deadBytes > volume.liveBytes / 2)
        #expect(try store.compact(.to(1.2)).bytesFreed > volume.liveBytes / 2)
        #expect(Double(volumeBytes) < 1.2 * Double(volume.liveBytes))
        for name in ["a", "b"] {
            #expect(try restored(store, try store.prefix(of: .video(name)))[3] == cache.bytes(layer: 3, 0..<640))
        }
        try expectSound(store)
    }

    @Test("What an ended writer left unfinished is deleted once it is old enough, what is being written stays")
    func unfinished() async throws {
        do { _ = try makeStore(in: folder, Numbered.model) }
        await #expect(processExitsWith: .failure) { [path = path as String] in
            let writer = try Store(opening: path).writer(for: .video("left"), model: "small", profile: .exact)
            try Numbered.cache(1).append(0..<100, to: writer)
            try writer.flush()
            fatalError("killed on purpose")
        }
        let store = try Store(opening: path)
        let writer = try store.writer(for: .video("going"), model: "small", profile: .exact)
        try Numbered.cache(2).append(0..<100, to: writer)
        try writer.flush()
        #expect(try store.compact().unfinishedRemoved == 0)
        #expect(try store.sequences(.video, building: true).count == 2)
        var options = CompactionOptions()
        options.unfinishedOlderThan = 0
        #expect(try store.compactionPlan(options).unfinished == 1)
        #expect(try store.compact(options).unfinishedRemoved == 1)
        #expect(try store.sequences(.video, building: true).map(\.name.name) == ["going"])
        #expect(try store.longestPrefix(of: Numbered.cache(1).tokens, model: "small").tokenCount == 0)
        try writer.finish()
        try Numbered.expectRight([2], in: store)
        try expectSound(store)
    }

    @Test("An encoding goes where another is as exact and no larger")
    func dominated() throws {
        let store = try makeStore(in: folder, Numbered.model)
        let tokens = TokenSequence.text(64, seed: 1)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * 64 * 64 * 2, alignment: 64)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        let view = try TensorView(
            bytes: UnsafeRawBufferPointer(memory), elementType: .bfloat16, layout: .headsFirst(heads: 4, tokens: 64, dim: 64))
        for profile in [Profile.exact, try Profile.named("int8")] {
            let writer = try store.writer(for: .video(profile.name), model: "small", profile: profile)
            try writer.append(tokens, layers: (0..<4).map { _ in LayerTokens(key: view, value: view) })
            try writer.finish()
        }
        try Numbered.write([5], to: store)
        try write(Numbered.cache(5), as: .video("lossy"), to: store, profile: try Profile.named("int8"))
        let pages = try store.pages()
        #expect(try store.dropDominatedEncodings() == 1)
        // zeros are as exact in either; elsewhere one is more exact, the other smaller
        let gone = Set(pages).subtracting(try store.pages())
        #expect(gone.count == 1 && gone.allSatisfy { $0.tokens == 0..<64 && $0.keyError < 1e-30 })
        #expect(try store.dropDominatedEncodings() == 0)
        let match = try store.longestPrefix(of: tokens, model: "small", accepting: .exact)
        #expect(try restored(store, match).allSatisfy { $0.allSatisfy { $0 == 0 } } && match.tokenCount == 64)
        try Numbered.expectRight([5], in: store)
        try expectSound(store)
    }

    // MARK: - In small steps

    @Test("Steps copy no more than they may, and end where a compaction does", arguments: [1, 300_000, 1 << 24])
    func steps(bytesMax: Int) throws {
        let (store, left) = try Numbered.mostlyDead(in: folder)
        var copied = 0
        var freed = 0
        while case let step = try store.compactStep(bytesMax: bytesMax), step != (0, 0) {
            #expect(step.copied <= max(bytesMax, 300_000))
            copied += step.copied
            freed += step.freed
        }
        #expect(freed > 4 * copied && copied > 0)
        try Numbered.expectRight(left, in: store)
        try expectSound(store)
        let live = try store.statistics().volumes.reduce(0) { $0 + $1.liveBytes }
        #expect(Double(volumeBytes) <= 1.2 * Double(live))
        #expect(try store.compact().bytesCopied == 0)
    }

    @Test("Steps go on while others write and delete")
    func stepsBetweenWrites() throws {
        let store = try makeStore(in: folder, Numbered.model, volumeBytesMax: 64 << 20)
        store.volumeSealBytes = 2 << 20
        var random = SeededGenerator(11)
        var stored: Set<Int> = []
        for number in 0..<120 {
            try Numbered.write([number], to: store)
            stored.insert(number)
            if stored.count > 12, let gone = stored.randomElement(using: &random) {
                try Numbered.remove([gone], from: store)
                stored.remove(gone)
            }
            _ = try store.compactStep(bytesMax: 1 << 20, deadShareMin: 0.4)
        }
        try Numbered.expectRight(stored, in: store)
        try expectSound(store)
        let statistics = try store.statistics()
        #expect(volumeBytes < 3 * statistics.volumes.reduce(0) { $0 + $1.liveBytes } + 4 << 20)
        #expect(statistics.writeAmplification < 2.5, "\(statistics.writeAmplification)")
    }

    @Test("A volume is sealed at the size that is asked for")
    func sealBytes() throws {
        let store = try makeStore(in: folder, Numbered.model, volumeBytesMax: 64 << 20)
        store.volumeSealBytes = 1 << 20
        try Numbered.write(0..<20, to: store)
        let volumes = try store.statistics().volumes
        let bytes = volumes.reduce(0) { $0 + $1.fileBytes }
        #expect(volumes.allSatisfy { $0.fileBytes < 3 << 19 })
        #expect(volumes.count > bytes / (3 << 19) && volumes.dropLast().allSatisfy { $0.fileBytes >= 1 << 20 })
        #expect(volumes.filter { !$0.isSealed }.count <= 1)
        try Numbered.expectRight(0..<20, in: store)
        try Numbered.remove(0..<20, from: store)
        #expect(try store.statistics().volumes.allSatisfy { !$0.isSealed })
        store.volumeSealBytes = .max
        #expect(store.volumeSealBytes == 64 << 20)
    }
}
