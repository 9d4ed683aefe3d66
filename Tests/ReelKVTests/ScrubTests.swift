import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Scrubs")
struct ScrubTests {
    private let folder = TemporaryFolder()

    @Test("Every page is read once a round, whatever the steps, also by different processes")
    func rounds() throws {
        let path = try RepairStore.copy(to: folder)
        var total = 0
        do {
            let store = try Store(opening: path)
            let whole = try store.scrub()
            #expect(whole.isRoundFinished && whole.damaged == 0 && whole.pages > 20)
            total = whole.pages
            let statistics = try store.statistics().scrub
            #expect(statistics.pages == total && statistics.finishedSeconds != nil && statistics.startedSeconds == nil)
        }
        for bytes in [1, 5000, 100_000] {
            var pages = 0
            var steps = 0
            while true {
                // each step goes on from what the last one wrote down
                let store = try Store(opening: path)
                let step = try #require(try store.scrubStep(bytesMax: bytes))
                #expect(step.pages == 1 || step.bytes <= bytes)
                pages += step.pages
                steps += 1
                if step.isRoundFinished { break }
                #expect(try store.statistics().scrub.startedSeconds != nil)
            }
            #expect(pages == total && steps >= 1)
        }
        #expect(try Store(opening: path).statistics().scrub.pages == 4 * total)
    }

    @Test("A page that went bad is quarantined, wherever the damage is, and nothing else", arguments: [20, 70, 130, 3000])
    func damage(offset: Int) throws {
        let path = try RepairStore.copy(to: folder)
        let file = path + "/volumes/00000001.mdb"
        var bytes = try readFile(file)
        let magic: [UInt8] = [0x89, 0x52, 0x4B, 0x56, 0x50, 0x0D, 0x0A, 0x1A]
        let starts = stride(from: 16, to: bytes.count - 4096, by: 4096).filter { Array(bytes[$0..<$0 + 8]) == magic }
        bytes[starts[4] + offset] ^= 8
        try writeFile(file, with: bytes)
        let store = try Store(opening: path)
        #expect(try store.scrub().damaged == 1)
        #expect(try store.scrub().damaged == 0)
        #expect(try store.statistics().scrub.damaged == 1)
        let report = try store.verify()
        #expect(report.isSound && report.quarantined == 1)
        try RepairStore.matched(store)
    }

    @Test("A scrub keeps to its rate, can be ended, and excludes another")
    func limits() throws {
        let path = try RepairStore.copy(to: folder)
        let store = try Store(opening: path)
        struct Enough: Error {}
        var options = ScrubOptions()
        options.bytesPerSecondMax = 10_000
        var calls = 0
        #expect(throws: Enough.self) {
            try store.scrub(options) { _ in
                calls += 1
                if calls == 2 { throw Enough() }
            }
        }
        #expect(try store.statistics().scrub.startedSeconds != nil)
        options.bytesPerSecondMax = 0
        #expect { try store.scrub(options) } throws: { ($0 as? StoreError)?.code == .invalidArgument }
        let lock = open(path + "/scrub.lock", O_RDWR)
        #expect(flock(lock, LOCK_EX) == 0)
        #expect(try store.scrubStep(bytesMax: 1) == nil)
        #expect { try store.scrub() } throws: { ($0 as? StoreError)?.code == .inUse }
        close(lock)
        #expect(try store.scrub().isRoundFinished)
        let reader = try Store(opening: path, access: .readOnly)
        #expect { try reader.scrub() } throws: { ($0 as? StoreError)?.code == .readOnly }
    }

    @Test("A page that moved while a round is under way is not missed for good, and deleted ones are no damage")
    func moves() throws {
        let (store, left) = try Numbered.mostlyDead(in: folder, count: 20)
        _ = try store.scrubStep(bytesMax: 1)
        _ = try store.compact(.to(1))
        #expect(try store.scrub().damaged == 0)
        #expect(try store.scrub().damaged == 0)
        try Numbered.expectRight(left, in: store)
    }
}
