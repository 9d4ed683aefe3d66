import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

@Suite("Encrypted tenants", .timeLimit(.minutes(20)))
struct EncryptionTests {
    private let folder = TemporaryFolder()
    private let model = ModelSpec.small()
    private let key = EncryptionKey.random()
    private let profiles = ["exact", "vidkv-2-2", "vidkv-1.5-1.58"]

    private func alice(_ name: String = "chat") -> SequenceName { .session(name, tenant: "alice") }

    private func makeEncryptedStore(volumeBytesMax: Int = 64 << 20) throws -> Store {
        let store = try makeStore(in: folder, model, volumeBytesMax: volumeBytesMax)
        try store.createTenant(named: "alice", key: key)
        return store
    }

    private func add(
        _ cache: SyntheticCache, _ name: SequenceName, to store: Store, profile: String = "exact", state: [UInt8]? = nil
    ) throws {
        let writer = try store.writer(for: name, model: "small", profile: try .named(profile))
        try cache.append(writer.tokenCount..<cache.tokens.count, to: writer)
        let frames = name.kind == .video ? [VideoFrame(firstToken: 0, tokenCount: 8, seconds: 1.5)] : []
        try writer.finish(engineState: state, frames: frames, provenance: ["source": "the provenance of it all"])
    }

    private func expect(_ cache: SyntheticCache, at name: SequenceName, in store: Store) throws {
        let prefix = try store.prefix(of: name)
        #expect(prefix.tokenCount == cache.tokens.count)
        for (layer, bytes) in try restored(store, prefix).enumerated() {
            #expect(bytes == cache.bytes(layer: layer, 0..<cache.tokens.count))
        }
        #expect(try store.tokens(of: prefix).ids == cache.tokens.ids)
    }

    private func code(_ body: () throws -> Void) -> StoreError.Code? {
        do { try body() } catch { return (error as? StoreError)?.code }
        return nil
    }

    /// Every file of the store.
    private func allBytes() throws -> [(path: String, bytes: [UInt8])] {
        func files(_ path: String) throws -> [(String, [UInt8])] {
            let names = TemporaryFolder.names(path)
            return try names.flatMap { name in
                TemporaryFolder.names(path + "/" + name).isEmpty
                    ? [(path + "/" + name, try readFile(path + "/" + name))] : try files(path + "/" + name)
            }
        }
        return try files(folder.path + "/store").map { (path: $0.0, bytes: $0.1) }
    }

    private func bytes(ofHex hex: String) -> [UInt8] {
        stride(from: 0, to: hex.utf8.count, by: 2).compactMap { UInt8(hex.dropFirst($0).prefix(2), radix: 16) }
    }

    // MARK: - With the key

    @Test("What is written is read back as without encryption, in every profile")
    func roundTrip() throws {
        let store = try makeEncryptedStore()
        for profile in profiles {
            let tokens = TokenSequence.text(200, seed: UInt64(profile.utf8.count))
            let cache = SyntheticCache(model, tokens)
            try add(cache, alice(profile), to: store, profile: profile, state: [1, 2, 3])
            try add(cache, .session(profile), to: store, profile: profile)
            let (sealed, plain) = (try store.prefix(of: alice(profile)), try store.prefix(of: .session(profile)))
            #expect(try restored(store, sealed) == restored(store, plain))
            #expect(
                try restored(store, sealed, layers: 1..<2, tokens: 70..<130)
                    == restored(store, plain, layers: 1..<2, tokens: 70..<130))
            #expect(sealed.engineState == [1, 2, 3])
            #expect(try store.tokens(of: sealed).ids == tokens.ids)
            #expect(try store.info(of: alice(profile)).provenance.entries["source"] == "the provenance of it all")
        }
        try expectSound(store)
        #expect(try store.verify().lockedNodes == 0)
    }

    @Test("A match is exact to the token, inside pages and tail pieces too", arguments: [3, 40, 64, 100, 130, 199, 200])
    func matching(count: Int) throws {
        let store = try makeEncryptedStore()
        let tokens = TokenSequence.text(200, seed: 9)
        for other in 1...20 {
            let cache = SyntheticCache(model, tokens[0..<other * 9] + .text(30, seed: UInt64(100 + other)))
            try add(cache, alice("other \(other)"), to: store)
        }
        try add(SyntheticCache(model, tokens), alice(), to: store)
        let query = tokens[0..<count] + .text(50, seed: 77)
        #expect(try store.longestPrefix(of: query, model: "small", tenant: "alice").tokenCount == count)
        #expect(try store.longestPrefix(of: query, model: "small").tokenCount == 0)
    }

    @Test("Sessions go on, fork, are cut and removed; nothing is lost by opening the store anew")
    func operations() throws {
        var store = try makeEncryptedStore()
        let cache = SyntheticCache(model, .text(300, seed: 4))
        for end in [10, 64, 90, 200, 300] {
            let writer = try store.writer(for: alice(), model: "small", profile: .exact)
            try cache.append(writer.tokenCount..<end, to: writer)
            try writer.finish()
        }
        #expect(try store.info(of: alice()).turns.map(\.firstToken) == [0, 10, 64, 90, 200])
        try store.fork(alice(), to: "branch", count: 150)
        try store.truncate(session: "branch", tenant: "alice", to: 120)
        store = try Store(opening: folder.path + "/store")
        try store.unlock(tenant: "alice", with: key)
        try expect(cache, at: alice(), in: store)
        #expect(try store.prefix(of: alice("branch")).tokenCount == 120)
        #expect(try store.info(of: alice("branch")).provenance.entries["forked_from"] != nil)
        try store.remove(alice())
        try store.remove(alice("branch"))
        _ = try store.compact()
        #expect(try store.pages().isEmpty)
        try expectSound(store)
    }

    @Test("Pages are demoted, moved and mended")
    func upkeep() throws {
        let store = try makeEncryptedStore(volumeBytesMax: 1 << 20)
        let caches = (0..<6).map { SyntheticCache(model, .text(192, seed: UInt64(20 + $0))) }
        for (number, cache) in caches.enumerated() { try add(cache, alice("\(number)"), to: store) }
        for number in [0, 2, 4] { try store.remove(alice("\(number)")) }
        var options = CompactionOptions()
        options.targetRatio = 1
        #expect(try store.compact(options).pagesCopied > 0)
        for number in [1, 3, 5] { try expect(caches[number], at: alice("\(number)"), in: store) }
        #expect(try store.demote(DemotionOptions(profile: .named("kivi-2"))).pages == 9)
        #expect(try !store.prefix(of: alice("1")).isExact)
        try expectSound(store)
        let report = try store.repair()
        #expect(report.found.isSound && report.isSound)
    }

    // MARK: - Without the key

    @Test("Nothing of tokens, tensors, provenance, state or salt is in any file")
    func nothingInTheClear() throws {
        let store = try makeEncryptedStore()
        let marker = Array("an engine's state that nobody should see".utf8)
        let tokens = TokenSequence.text(130, seed: 5)
        let cache = SyntheticCache(model, tokens)
        try add(cache, alice(), to: store, state: marker)
        try add(cache, .video("film", tenant: "alice"), to: store)
        try store.sync()
        // ids below 2^16 take two bytes in canonical tokens, and big-endian ones in order keys
        let ids = tokens.ids.prefix(12)
        let secrets: [(String, [UInt8])] = [
            ("state", marker), ("provenance", Array("provenance of it all".utf8)),
            ("tokens", ids.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }),
            ("order key", ids.flatMap { [0, 0, UInt8(truncatingIfNeeded: $0 >> 8), UInt8(truncatingIfNeeded: $0)] }),
            ("key", Array(key.hex.utf8)), ("key", bytes(ofHex: key.hex)),
        ]
        for (path, bytes) in try allBytes() {
            for (what, secret) in secrets { #expect(!bytes.contains(secret), "\(what) in \(path)") }
        }
        // the same test finds them where they are not encrypted
        try add(cache, .session("plain"), to: store, state: marker)
        try store.sync()
        let all = try allBytes().flatMap(\.bytes)
        for (what, secret) in secrets.prefix(4) { #expect(all.contains(secret), "\(what)") }
    }

    @Test("Without the key names are listed and pages evicted, moved and checked, but nothing is read or written")
    func locked() throws {
        let path = folder.path + "/store"
        let tokens = TokenSequence.text(200, seed: 6)
        let cache = SyntheticCache(model, tokens)
        try {
            let store = try makeEncryptedStore()
            try add(cache, alice(), to: store)
            try add(cache, alice("gone"), to: store)
            try add(SyntheticCache(model, .text(200, seed: 8)), .session("plain"), to: store)
        }()
        try {
            let store = try Store(opening: path)
            #expect(try store.tenantInfos().map { [$0.isEncrypted, $0.isUnlocked] } == [[true, false], [false, true]])
            #expect(code { _ = try store.longestPrefix(of: tokens, model: "small", tenant: "alice") } == .keyRequired)
            #expect(code { _ = try store.prefix(of: alice()) } == .keyRequired)
            #expect(code { _ = try store.writer(for: alice("new"), model: "small", profile: .exact) } == .keyRequired)
            #expect(code { try store.fork(alice(), to: "branch") } == .keyRequired)
            #expect(code { _ = try store.repair() } == .keyRequired)
            #expect(code { try store.rekey(tenant: "alice", to: .random()) } == .keyRequired)
            #expect(code { try store.unlock(tenant: "alice", with: .random()) } == .wrongKey)
            #expect(code { try store.unlock(tenant: "default", with: key) } == .invalidArgument)
            let pages = try store.pages().filter { $0.tenant == "alice" }
            #expect(code { try store.withImage(of: pages[0]) { _ in } } == .keyRequired)
            let info = try store.info(of: alice())
            #expect(info.isLocked && info.tokenCount == 200 && info.provenance.entries.isEmpty && info.turns.isEmpty)
            let report = try store.verify()
            #expect(report.isSound && report.lockedNodes == 4 && report.quarantined == 0)
            #expect(try store.scrub().damaged == 0)
            #expect(try store.setPinned(true, alice()))
            try store.remove(alice("gone"))
            _ = try store.compact()
            #expect(try store.demote(DemotionOptions(profile: .named("kivi-2"))).pages == 3)
        }()
        let store = try Store(opening: path)
        try store.unlock(tenant: "alice", with: key)
        try expect(cache, at: alice(), in: store)
        #expect(try store.info(of: alice()).isPinned)
        #expect(try store.info(of: alice()).turns.count == 1)
        try expectSound(store)
    }

    @Test("Whoever is given a key before the tenant is made has it made encrypted")
    func keyBeforeTenant() throws {
        let store = try makeStore(in: folder, model)
        try store.unlock(tenant: "alice", with: key)
        try add(SyntheticCache(model, .text(70, seed: 1)), alice(), to: store)
        #expect(try store.tenantInfos().map(\.isEncrypted) == [true])
    }

    @Test("A store without encrypted tenants keeps the earlier format version; one with them has its own")
    func formatVersion() throws {
        let store = try makeStore(in: folder, model)
        func version() throws -> UInt8? {
            try store.sync()
            let index = try readFile(folder.path + "/store/index.mdb")
            let magic = [0x89, 0x52, 0x45, 0x45, 0x4C, 0x4B, 0x56, 0x0A] as [UInt8]
            return index.indices.dropLast(12).filter { index[$0] == 0x89 && index[$0..<$0 + 8].elementsEqual(magic) }
                .map { index[$0 + 10] }.max()
        }
        #expect(try version() == 3)
        try store.createTenant(named: "alice", key: key)
        #expect(try version() == 4)
    }

    // MARK: - Damage

    @Test("A flipped bit of a sealed page is found, with the key and without", arguments: 0..<40)
    func flippedBit(seed: UInt64) throws {
        let path = folder.path + "/store"
        let cache = SyntheticCache(model, .text(64, seed: 3))
        let page = try {
            let store = try makeEncryptedStore()
            try add(cache, alice(), to: store)
            return try #require(store.pages().first)
        }()
        let volume = path + "/volumes/00000001.mdb"
        var bytes = try readFile(volume)
        let magic = [0x89, 0x52, 0x4B, 0x56, 0x53, 0x50, 0x47, 0x0A] as [UInt8]
        let start = try #require(bytes.indices.first { bytes[$0] == 0x89 && bytes[$0...].starts(with: magic) })
        var random = SeededGenerator(seed)
        // but for the eight bytes that tell a sealed image from one in the clear: nothing of those is served either, see below
        let bit = Int(random.next() % UInt64(page.imageBytes * 8))
        bytes[start + bit / 8] ^= 1 << (bit % 8)
        try writeFile(volume, with: bytes)
        let store = try Store(opening: path)
        #expect(try store.verify(depth: .checksums).problems.count == 1)
        try store.unlock(tenant: "alice", with: key)
        #expect(code { _ = try restored(store, try store.prefix(of: alice())) } == .pageUnavailable)
        #expect(try store.prefix(of: alice()).tokenCount == 0)
    }

    @Test("Lost index: with the keys it is made anew from the volumes, and not without")
    func rebuilding() throws {
        let path = folder.path + "/store"
        let cache = SyntheticCache(model, .text(200, seed: 6))
        try {
            let store = try makeEncryptedStore()
            try add(cache, alice(), to: store)
        }()
        for name in TemporaryFolder.names(path) where name.hasPrefix("index") { TemporaryFolder.removeTree(path + "/" + name) }
        #expect(code { _ = try Store.rebuild(at: path) } == .keyRequired)
        #expect(code { _ = try Store.rebuild(at: path, keys: ["alice": .random()]) } == .wrongKey)
        let report = try Store.rebuild(at: path, keys: ["alice": key])
        #expect(report.isSound && report.nodesRecovered == 4)
        let store = try Store(opening: path)
        try store.unlock(tenant: "alice", with: key)
        let found = try store.longestPrefix(of: cache.tokens, model: "small", tenant: "alice")
        #expect(found.tokenCount == 200)
        #expect(try restored(store, found)[0] == cache.bytes(layer: 0, 0..<200))
    }

    // MARK: - Another key

    @Test("Another key opens everything at once, the old one nothing; compaction drops the old data key")
    func rekeying() throws {
        let path = folder.path + "/store"
        let new = EncryptionKey.random()
        let caches = (0..<4).map { SyntheticCache(model, .text(200, seed: UInt64(30 + $0))) }
        try {
            let store = try makeEncryptedStore(volumeBytesMax: 1 << 20)
            for (number, cache) in caches.enumerated() { try add(cache, alice("\(number)"), to: store, state: [7]) }
            try store.rekey(tenant: "alice", to: new)
            try expect(caches[0], at: alice("0"), in: store)
            #expect(try store.tenantInfos()[0].hasEarlierKeys)
            try add(SyntheticCache(model, .text(100, seed: 90)), alice("after"), to: store)
            try expectSound(store)
        }()
        let store = try Store(opening: path)
        #expect(code { try store.unlock(tenant: "alice", with: key) } == .wrongKey)
        try store.unlock(tenant: "alice", with: new)
        for (number, cache) in caches.enumerated() { try expect(cache, at: alice("\(number)"), in: store) }
        var options = CompactionOptions()
        options.reseals = true
        #expect(try store.compact(options).pagesCopied > 0)
        #expect(try !store.tenantInfos()[0].hasEarlierKeys)
        for (number, cache) in caches.enumerated() {
            try expect(cache, at: alice("\(number)"), in: store)
            #expect(try store.prefix(of: alice("\(number)")).engineState == [7])
        }
        #expect(try store.compact(options).pagesCopied == 0)
        try expectSound(store)
    }

    @Test("Who has a key that is not the tenant's any more cannot write what nobody could read")
    func staleKey() async throws {
        let path = folder.path + "/store"
        let store = try makeEncryptedStore()
        let cache = SyntheticCache(model, .text(200, seed: 30))
        let writer = try store.writer(for: alice(), model: "small", profile: .exact)
        try cache.append(0..<100, to: writer)
        let (old, new) = (key.hex, EncryptionKey.random().hex)
        await #expect(processExitsWith: .success) { [path = path as String, old = old as String, new = new as String] in
            let store = try Store(opening: path)
            try store.unlock(tenant: "alice", with: EncryptionKey(hex: old))
            try store.rekey(tenant: "alice", to: EncryptionKey(hex: new))
        }
        #expect(
            code {
                try cache.append(100..<200, to: writer)
                try writer.finish()
            } == .keyRequired)
        try store.unlock(tenant: "alice", with: EncryptionKey(hex: new))
        try add(cache, alice(), to: store)
        try expect(cache, at: alice(), in: store)
        try expectSound(store)
    }

    /// Another process gives the tenant another key, which this one does not know yet.
    private func rekeyElsewhere(to new: EncryptionKey) async {
        let (path, old, new) = (folder.path + "/store", key.hex, new.hex)
        await #expect(processExitsWith: .success) { [path = path as String, old = old as String, new = new as String] in
            let store = try Store(opening: path)
            try store.unlock(tenant: "alice", with: EncryptionKey(hex: old))
            try store.rekey(tenant: "alice", to: EncryptionKey(hex: new))
        }
    }

    @Test("Who has a key that is not the tenant's any more finds it locked, and takes nothing of it for damaged")
    func staleKeyIsNoDamage() async throws {
        let store = try makeEncryptedStore(volumeBytesMax: 1 << 20)
        let caches = (0..<3).map { SyntheticCache(model, .text(200, seed: UInt64(40 + $0))) }
        for (number, cache) in caches.enumerated() { try add(cache, alice("\(number)"), to: store, state: [7]) }
        let plain = SyntheticCache(model, .text(150, seed: 50))
        try add(plain, .session("plain"), to: store)
        let new = EncryptionKey.random()
        await rekeyElsewhere(to: new)

        let report = try store.verify(quarantining: true)
        #expect(report.isSound && report.quarantined == 0 && report.lockedNodes > 0, "\(report.problems)")
        #expect(code { _ = try store.repair() } == .keyRequired)
        #expect(try store.scrub().damaged == 0)
        #expect(try store.sequences(.session, tenant: "alice").map(\.isLocked) == [true, true, true])
        #expect(try store.tenantInfos().map(\.isUnlocked) == [false, true])
        #expect(code { _ = try store.prefix(of: alice("0")) } == .keyRequired)
        #expect(code { _ = try store.longestPrefix(of: caches[0].tokens, model: "small", tenant: "alice") } == .keyRequired)
        // the others' pages are moved and demoted as ever
        try expect(plain, at: .session("plain"), in: store)
        var options = DemotionOptions(profile: try .named("int4"))
        options.freeBytes = nil
        #expect(try store.demote(options).pages > 0)
        _ = try store.compact()

        try store.unlock(tenant: "alice", with: new)
        for (number, cache) in caches.enumerated() { try expect(cache, at: alice("\(number)"), in: store) }
        #expect(try store.repair().found.problems.isEmpty)
        try expectSound(store)
    }

    @Test("What was sealed for a sequence before another key came, and the old data key went, is not stored unreadable")
    func rekeyingUnderWriter() throws {
        let store = try makeEncryptedStore(volumeBytesMax: 1 << 20)
        let (cache, other) = (SyntheticCache(model, .text(200, seed: 60)), SyntheticCache(model, .text(150, seed: 61)))
        try add(other, alice("other"), to: store)
        let writer = try store.writer(for: alice(), model: "small", profile: .exact)
        try cache.append(0..<100, to: writer)
        try store.rekey(tenant: "alice", to: .random())
        var options = CompactionOptions()
        options.reseals = true
        _ = try store.compact(options)
        #expect(
            code {
                try cache.append(100..<200, to: writer)
                try writer.finish()
            } == .conflict)
        try add(cache, alice(), to: store)
        // a writer that has flushed goes on under the new key
        let long = SyntheticCache(model, .text(200, seed: 62))
        let second = try store.writer(for: alice("long"), model: "small", profile: .exact)
        try long.append(0..<100, to: second)
        try second.flush()
        try store.rekey(tenant: "alice", to: .random())
        _ = try store.compact(options)
        try long.append(100..<200, to: second)
        try second.finish()
        for (cache, name) in [(cache, "chat"), (other, "other"), (long, "long")] { try expect(cache, at: alice(name), in: store) }
        try expectSound(store)
    }

    // MARK: - Key files

    @Test("Key files: what is one, and what is refused")
    func keyFiles() throws {
        let path = folder.path + "/key"
        func write(_ bytes: [UInt8], mode: mode_t = 0o600) throws {
            remove(path)
            try writeFile(path, with: bytes)
            chmod(path, mode)
        }
        try write(Array(key.hex.utf8) + [10])
        #expect(try EncryptionKey(contentsOf: path) == key)
        try write(bytes(ofHex: key.hex))
        #expect(try EncryptionKey(contentsOf: path) == key)
        for bytes in [[], Array("00".utf8), Array(key.hex.utf8) + Array("00".utf8), Array(repeating: 0x7A, count: 64)] {
            try write(bytes)
            #expect(code { _ = try EncryptionKey(contentsOf: path) } == .invalidArgument)
        }
        try write(Array(key.hex.utf8), mode: 0o644)
        #expect(code { _ = try EncryptionKey(contentsOf: path) } == .invalidArgument)
        #expect(code { _ = try EncryptionKey(contentsOf: path + "-none") } == .notFound)
        #expect("\(key)" == "EncryptionKey" && "\(String(reflecting: key))" == "EncryptionKey")
        var dumped = ""
        dump(key, to: &dumped)
        #expect(!dumped.contains(key.hex.prefix(8)))
    }
}

extension [UInt8] {
    fileprivate func contains(_ other: [UInt8]) -> Bool {
        guard let first = other.first else { return true }
        return indices.dropLast(Swift.max(0, other.count - 1)).contains {
            self[$0] == first && self[$0..<$0 + other.count].elementsEqual(other)
        }
    }
}
