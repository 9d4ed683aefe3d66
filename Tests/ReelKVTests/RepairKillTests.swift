import Dispatch
import KVCodec
import LMDB
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Repairs and rebuilds killed at random moments, and stores damaged at random.
@Suite("Killed and random repairs", .timeLimit(.minutes(20)))
struct RepairKillTests {
    private typealias Entries = [(key: [UInt8], value: [UInt8])]
    private static let killCount = 12
    private static let tables = [
        "model", "tenant", "node", "name", "child", "video", "session", "building", "state", "volume", "tip", "usage", "leaf",
        "account",
    ]

    @Test("Whenever a repair is killed, the next one ends it, and nothing is lost for it", arguments: [false, true])
    func kills(isRebuilding: Bool) async throws {
        let folder = TemporaryFolder()
        let path = try RepairStore.copy(to: folder)
        for round in 0..<Self.killCount {
            // a small delay more each time, so that every phase is hit
            let delay = UInt32(round * round * 400)
            if isRebuilding {
                for name in TemporaryFolder.names(path) where name.hasPrefix("index.") { unlink(path + "/" + name) }
            } else {
                try Self.damageNewest(path, "node") { $0[0].value[92] ^= 1 }
            }
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = path as String, delay = delay as UInt32, isRebuilding = isRebuilding as Bool] in
                DispatchQueue.global().async {
                    usleep(delay)
                    kill(getpid(), SIGKILL)
                }
                if isRebuilding { _ = try? Store.rebuild(at: path) } else { _ = try Store(opening: path).repair() }
                while true { usleep(1000) }
            }
            if (try? Store(opening: path)) == nil { #expect(try Store.rebuild(at: path).isSound) }
            let store = try Store(opening: path)
            #expect(try store.repair().isSound, "round \(round)")
            try expectSound(store)
            #expect(try RepairStore.matched(store) == RepairStore.all, "round \(round)")
        }
    }

    @Test("Another process writes while the index is written anew again and again: what it acknowledged is there")
    func besideAWriter() async throws {
        let folder = TemporaryFolder()
        let path = try RepairStore.copy(to: folder)
        let isDone = FileSign(path: folder.path + "/done")
        let hasBegun = FileSign(path: folder.path + "/begun")
        let repairs = Aside {
            let store = try Store(opening: path)
            var count = 0
            hasBegun.wait()
            while !isDone.isGiven || count == 0 {
                unlink(path + "/identity")
                let report = try store.repair(depth: .index)
                guard report.isSound, report.changes.isEmpty else { fatalError("\(report)") }
                count += 1
            }
            return count
        }
        await #expect(processExitsWith: .success) { [path = path as String, begun = hasBegun.path as String] in
            let store = try Store(opening: path)
            FileSign(path: begun).give()
            for number in 0..<20 {
                let cache = SyntheticCache(RepairStore.model, .text(90, seed: UInt64(500 + number)))
                try write(cache, as: .session("w\(number)"), to: store)
            }
        }
        isDone.give()
        #expect(try await repairs.result() > 0)
        let store = try Store(opening: path)
        try expectSound(store)
        #expect(try RepairStore.matched(store) == RepairStore.all)
        for number in 0..<20 {
            let cache = SyntheticCache(RepairStore.model, .text(90, seed: UInt64(500 + number)))
            let prefix = try store.prefix(of: .session("w\(number)"))
            #expect(prefix.tokenCount == 90)
            for (layer, bytes) in try restored(store, prefix).enumerated() { #expect(bytes == cache.bytes(layer: layer, 0..<90)) }
        }
    }

    /// Changes a table of whatever generation of the index is the current one.
    private static func damageNewest(_ path: String, _ table: String, _ body: (inout Entries) -> Void) throws {
        let newest = TemporaryFolder.names(path).filter { $0.hasPrefix("index.") && $0.hasSuffix(".mdb") }
            .max { ($0.count, $0) < ($1.count, $1) }
        try RepairStore.change(path, table, file: try #require(newest), body)
    }

    @Test("Whatever is damaged, a repair leaves a sound store, and what is still matched is right", arguments: 0..<10)
    func random(seed: Int) throws {
        let folder = TemporaryFolder()
        var random = SeededGenerator(UInt64(seed) &* 77 &+ 5)
        for round in 0..<6 {
            let path = try RepairStore.copy(to: folder)
            var what = "seed \(seed), round \(round)"
            // Flipped bits, or lies by who makes checksums right; the latter cannot read the former.
            let sealed = Bool.random(using: &random)
            for _ in 0..<Int.random(in: 1...4, using: &random) { what += ": " + (try Self.damage(path, sealed: sealed, &random)) }
            if (try? Store(opening: path)) == nil {
                guard (try? Store.rebuild(at: path)) != nil else {
                    #expect(!TemporaryFolder.names(path).contains("identity") || what.contains("identity"), "\(what)")
                    continue
                }
            }
            let store = try Store(opening: path)
            let report = try store.repair()
            #expect(report.left == [], "\(what)")
            try expectSound(store)
            let matched = try RepairStore.matched(store, what)
            // what was not matched can be stored again
            for (index, (name, tokens, model, _)) in RepairStore.sequences.enumerated() where matched[index] < tokens.count {
                guard try store.models().contains(model) else { continue }
                let again = SequenceName(name.kind, name.name + "-again", tenant: name.tenant)
                try write(SyntheticCache(model, tokens), as: again, to: store)
            }
            try expectSound(store)
        }
    }

    /// - Returns: what was damaged.
    private static func damage(_ path: String, sealed: Bool, _ random: inout SeededGenerator) throws -> String {
        switch Int.random(in: 0..<12, using: &random) {
        case 0:
            unlink(path + "/index.mdb")
            return "no index"
        case 1:
            let file = path + "/" + (Bool.random(using: &random) ? "identity" : "volumes/00000001.mdb")
            unlink(file)
            return "no \(file)"
        case 2:
            let file = path + "/volumes/00000001.mdb"
            guard access(file, R_OK) == 0, var bytes = try? readFile(file), !bytes.isEmpty else { return "nothing" }
            // behind the pages of LMDB's tree, which has no checksums
            for _ in 0..<5 { bytes[Int.random(in: bytes.count / 3..<bytes.count, using: &random)] ^= 0x21 }
            try writeFile(file, with: bytes)
            return "bytes of the volume"
        default:
            guard TemporaryFolder.names(path).contains("index.mdb") else { return "nothing" }
            let table = tables.randomElement(using: &random) ?? "node"
            var what = table
            try RepairStore.change(path, table, sealed: sealed) { entries in
                guard let index = entries.indices.randomElement(using: &random) else { return }
                switch Int.random(in: 0..<4, using: &random) {
                case 0: entries.remove(at: index)
                case 1: entries[index].value = Array(entries[index].value.dropLast())
                case 2:
                    guard let at = entries[index].value.indices.randomElement(using: &random) else { return }
                    entries[index].value[at] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &random)
                    what += " byte \(at)"
                default: entries[index].value = entries.randomElement(using: &random)?.value ?? []
                }
                what += " record \(index)"
            }
            return what
        }
    }
}
