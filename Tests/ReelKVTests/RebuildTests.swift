import KVCodec
import LMDB
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("A lost index", .timeLimit(.minutes(20)))
struct RebuildTests {
    private let folder = TemporaryFolder()

    private func rebuilt(_ damage: (String) throws -> Void) throws -> (store: Store, report: RepairReport) {
        let path = try RepairStore.copy(to: folder)
        try damage(path)
        #expect(throws: StoreError.self) { try Store(opening: path) }
        let report = try Store.rebuild(at: path)
        #expect(report.isRebuilt && report.left == [])
        let store = try Store(opening: path)
        try expectSound(store)
        return (store, report)
    }

    @Test("Deleted: every page of every tenant and model is matched again, bit for bit")
    func deleted() throws {
        let (store, report) = try rebuilt { unlink($0 + "/index.mdb") }
        #expect(report.nodesRecovered > 20)
        #expect(try RepairStore.matched(store) == RepairStore.all)
        #expect(try store.tenants() == ["alice", "bob", "default"])
        #expect(Set(try store.models()) == [RepairStore.model, RepairStore.other])
        // lossy pages too, and no more exact than they were
        let lossy = try store.longestPrefix(of: .text(70, seed: 4), model: "small")
        #expect(lossy.tokenCount == 70 && !lossy.isExact)
        #expect(try store.longestPrefix(of: .text(70, seed: 5), model: "small").tokenCount == 64)
        // the names come back when the sequences are written again, and nothing is stored for it
        for (name, tokens, model, _) in RepairStore.sequences {
            let writer = try store.writer(for: name, model: model.name, profile: .exact)
            try SyntheticCache(model, tokens).append(0..<tokens.count, to: writer)
            try writer.finish()
            #expect(writer.storedBytes < 40_000)
        }
        try expectSound(store)
        _ = try store.compact(.to(1))
        #expect(try RepairStore.matched(store) == RepairStore.all)
    }

    @Test("Cut, overwritten, or without the store's record: what can be read is kept")
    func damaged() throws {
        for count in [0, 100, 5000] {
            let (store, _) = try rebuilt { path in
                try writeFile(path + "/index.mdb", with: Array(try readFile(path + "/index.mdb").prefix(count)))
            }
            #expect(try RepairStore.matched(store) == RepairStore.all, "\(count)")
        }
        let (store, _) = try rebuilt { try writeFile($0 + "/index.mdb", with: Array(repeating: 9, count: 50_000)) }
        #expect(try RepairStore.matched(store) == RepairStore.all)
        #expect(try store.verify(depth: .index).leftovers.contains { $0.message.contains("damaged index") })
        // all but the store's own record can be read, names and engine state too
        let (second, report) = try rebuilt { path in
            try RepairStore.change(path, "store") { $0.removeAll { $0.key == Array("store".utf8) } }
        }
        #expect(report.nodesRecovered == 0)
        #expect(try second.sequences(.session).count == 5)
        #expect(try second.prefix(of: .video("v")).engineState == [1, 2, 3])
        #expect(try RepairStore.matched(second) == RepairStore.all)
    }

    @Test("Tokens borrowed from a lossy page do not pass for exact ones")
    func borrowed() throws {
        let path = folder.path + "/store"
        let first = TokenSequence.text(64, seed: 20)
        let second = first[0..<48] + .text(40, seed: 21)
        do {
            let store = try makeStore(in: folder, RepairStore.model, pageTokens: 32)
            try write(SyntheticCache(RepairStore.model, first), as: .session("lossy"), to: store, profile: .named("int4"))
            let start = try store.longestPrefix(of: second, model: "small")
            #expect(start.tokenCount == 48)
            try write(SyntheticCache(RepairStore.model, second), as: .session("s"), to: store, startingFrom: start)
        }
        let before = try Store(opening: path).longestPrefix(of: second, model: "small")
        unlink(path + "/index.mdb")
        _ = try Store.rebuild(at: path)
        let after = try Store(opening: path).longestPrefix(of: second, model: "small")
        #expect(after.tokenCount == before.tokenCount && !after.isExact)
        #expect(abs(after.keyError - before.keyError) <= before.keyError * 1e-5)
        #expect(abs(after.valueError - before.valueError) <= before.valueError * 1e-5)
    }

    @Test("Without the identities, or with an index that can be read, nothing is done")
    func refused() throws {
        let path = try RepairStore.copy(to: folder)
        #expect { try Store.rebuild(at: path) } throws: { ($0 as? StoreError)?.code == .invalidArgument }
        unlink(path + "/index.mdb")
        unlink(path + "/identity")
        #expect { try Store.rebuild(at: path) } throws: {
            ($0 as? StoreError)?.code == .damaged && "\($0)".contains("put back a copy")
        }
        #expect(!TemporaryFolder.names(path).contains("index.mdb"))
        #expect { try Store.rebuild(at: folder.path + "/nowhere") } throws: { ($0 as? StoreError)?.code == .notAStore }
        #expect { try Store.rebuild(at: "/tmp") } throws: { ($0 as? StoreError)?.code == .notAStore }
    }

    @Test("Damaged images are not taken, and what hangs on them is not either")
    func damagedImages() throws {
        let path = try RepairStore.copy(to: folder)
        unlink(path + "/index.mdb")
        let file = path + "/volumes/00000001.mdb"
        var bytes = try readFile(file)
        var random = SeededGenerator(5)
        for _ in 0..<6 { bytes[Int.random(in: bytes.count / 2..<bytes.count, using: &random)] ^= 4 }
        try writeFile(file, with: bytes)
        _ = try Store.rebuild(at: path)
        let store = try Store(opening: path)
        try expectSound(store)
        try RepairStore.matched(store)
    }
}
