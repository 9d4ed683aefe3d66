import KVCodec
import ReelKV
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Who may read a store's files, and what one tenant learns of another.
@Suite("Isolation")
struct IsolationTests {
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

    // MARK: - Files

    /// Every file and folder below a folder with what `lstat` says of it.
    private func files(_ path: String) -> [String: stat] {
        var status = stat()
        guard lstat(path, &status) == 0 else { return [:] }
        var all = [path: status]
        guard status.st_mode & S_IFMT == S_IFDIR else { return all }
        for name in TemporaryFolder.names(path) { all.merge(files(path + "/" + name)) { first, _ in first } }
        return all
    }

    private static func work(_ path: String) throws {
        var options = Store.Options()
        options.pageTokens = 32
        options.volumeBytesMax = 1 << 20
        let store = try Store.create(at: path, options: options)
        try store.addModel(.small())
        func check() {
            for (name, status) in IsolationTests().files(path) {
                let wanted: mode_t = status.st_mode & S_IFMT == S_IFDIR ? 0o700 : 0o600
                guard status.st_mode & 0o777 == wanted else { fatalError("\(name) has mode \(String(status.st_mode, radix: 8))") }
            }
        }
        for seed in 0..<12 {
            try write(SyntheticCache(.small(), .text(300, seed: UInt64(seed))), as: .session("s\(seed)"), to: store)
            check()
        }
        let lease = try store.lease(try store.prefix(of: .session("s11")))
        check()
        for seed in 0..<8 { try store.remove(.session("s\(seed)")) }
        var compaction = CompactionOptions()
        compaction.targetRatio = 1
        _ = try store.compact(compaction)
        check()
        _ = try store.evict(to: 1 << 20)
        try store.update { $0.quotaBytes = 4 << 20 }
        _ = try store.scrubStep(bytesMax: 1 << 20)
        check()
        _ = try store.repair()
        check()
        withExtendedLifetime(lease) {}
    }

    @Test("Files are 0600 and folders 0700 after every operation, whatever the umask")
    func modes() async {
        await #expect(processExitsWith: .success) { [path = path as String] in
            umask(0)
            try IsolationTests.work(path)
        }
        await #expect(processExitsWith: .success) { [path = path as String] in
            umask(0)
            for name in TemporaryFolder.names(path) where name.hasPrefix("index") { unlink(path + "/" + name) }
            _ = try Store.rebuild(at: path)
        }
        let found = files(path)
        #expect(found.count > 6)
        for (name, status) in found {
            #expect(status.st_mode & 0o777 == (status.st_mode & S_IFMT == S_IFDIR ? 0o700 : 0o600), "\(name)")
        }
    }

    @Test(
        "A symbolic link in place of one of the store's files or folders is not followed",
        arguments: [
            "volumes", "leases", "volumes/00000001.mdb", "volumes/00000001.mdb-lock", "index.mdb", "index.mdb-lock",
            "index.2.mdb",
            "space.lock", "compact.lock", "scrub.lock", "identity", "identity-new",
        ])
    func links(name: String) async throws {
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        let source = path
        await #expect(processExitsWith: .success) { [source = source as String] in
            let store = try Store.create(at: source)
            try store.addModel(.small())
            try write(SyntheticCache(.small(), .text(100, seed: 1)), as: .video("v"), to: store)
        }
        // what stood there, if anything did, lies outside now
        let outside = folder.path + "/outside"
        if rename(path + "/" + name, outside) != 0 { try writeFile(outside, with: Array("not the store's".utf8)) }
        try #require(symlink(outside, path + "/" + name) == 0)
        let before = files(outside).mapValues { [Int($0.st_size), Int($0.st_mtim.tv_sec), Int($0.st_mtim.tv_nsec)] }
        var messages: [String] = []
        for step in [
            { store in try write(SyntheticCache(.small(), .text(300, seed: 2)), as: .session("s"), to: store) },
            { store in
                let found = try restored(store, try store.prefix(of: .video("v")))[0]
                #expect(found == cache.bytes(layer: 0, 0..<100))
            },
            { store in try store.addModel(.small("other", fingerprint: 9)) },
            { store in try store.update { $0.quotaBytes = 64 << 20 } },
            { store in _ = try store.makeRoom() },
            { store in _ = try store.compact(CompactionOptions()) },
            { store in _ = try store.scrubStep(bytesMax: 1 << 20) },
            { store in _ = try store.repair() },
            { store in try store.remove(.video("v")) },
        ] as [(Store) throws -> Void] {
            do { try step(try Store(opening: path)) } catch { messages.append("\(error)") }
        }
        let after = files(outside).mapValues { [Int($0.st_size), Int($0.st_mtim.tv_sec), Int($0.st_mtim.tv_nsec)] }
        #expect(before == after, "\(name) was followed")
        #expect(messages.allSatisfy { !$0.isEmpty })
        if ["volumes", "leases", "index.mdb", "index.mdb-lock"].contains(name) {
            #expect(messages.count == 9 && messages.allSatisfy { $0.contains("symbolic link") }, "\(messages)")
        }
    }

    @Test("A store whose whole folder is reached through a link works")
    func linkToStore() throws {
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        try write(cache, as: .video("v"), to: try makeStore(in: folder))
        try #require(symlink(path, folder.path + "/link") == 0)
        let store = try Store(opening: folder.path + "/link")
        #expect(try restored(store, try store.prefix(of: .video("v")))[0] == cache.bytes(layer: 0, 0..<100))
    }

    @Test("Reading leaves a store as it was, but for the table of readers that LMDB keeps in lock files")
    func readOnly() async throws {
        let path = path
        await #expect(processExitsWith: .success) { [path = path as String] in
            let store = try Store.create(at: path)
            try store.addModel(.small())
            try write(SyntheticCache(.small(), .text(600, seed: 1)), as: .video("v"), to: store)
        }
        func state() throws -> [String: [Int]] {
            try files(path).filter { !$0.key.hasSuffix("-lock") }.reduce(into: [:]) { all, file in
                let status = file.value
                let bytes = status.st_mode & S_IFMT == S_IFREG ? try readFile(file.key).hashValue : 0
                all[file.key] = [Int(status.st_mtim.tv_sec), Int(status.st_mtim.tv_nsec), Int(status.st_size), bytes]
            }
        }
        let before = try state()
        let store = try Store(opening: path, access: .readOnly)
        let tokens = TokenSequence.text(600, seed: 1)
        let prefix = try store.longestPrefix(of: tokens, model: "small")
        #expect(prefix.tokenCount == 600)
        _ = try restored(store, prefix)
        _ = try store.tokens(of: prefix)
        _ = (try store.prefix(of: .video("v")), try store.info(of: .video("v")), try store.sequences(.video, building: true))
        _ = (try store.models(), try store.tenants(), try store.settings(), try store.statistics())
        #expect(try store.verify().isSound)
        // a plan is for who may evict: it is refused, and writes nothing either
        #expect(code { _ = try store.evictionPlan(to: 0) } == .readOnly)
        #expect(try state() == before)
    }

    // MARK: - Names

    static let badNames = ["", "a\0b", "a\nb", "\u{1B}[2J", "\u{7F}", "\u{9B}2J", String(repeating: "x", count: 201)]

    @Test(
        "Names that no terminal or index should see are refused wherever one is given, and nothing is written",
        arguments: badNames)
    func badName(name: String) throws {
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(50, seed: 1))
        try write(cache, as: .session("s"), to: store)
        for sequence in [SequenceName.session(name), .video(name), .session("t", tenant: name)] {
            #expect(code { try write(cache, as: sequence, to: store) } == .invalidArgument)
            #expect(code { try store.remove(sequence) } == .notFound)
            #expect(code { _ = try store.prefix(of: sequence) } == .notFound)
            #expect(code { try store.setPinned(true, sequence) } == .notFound)
        }
        #expect(code { try store.fork(.session("s"), to: name) } == .invalidArgument)
        #expect(code { try store.addModel(.small(name)) } == .invalidArgument)
        #expect(code { try store.setQuota(1 << 20, ofTenant: name) } != nil)
        #expect(try store.sequences(.session, building: true).map(\.name.name) == ["s"])
        #expect(try (store.tenants(), store.models().count) == (["default"], 1))
    }

    @Test("Names with slashes and dots are names, and no paths", arguments: ["/etc/passwd", "../../x", "..", ".", "a/../b"])
    func pathLikeName(name: String) throws {
        let store = try makeStore(in: folder)
        let before = Set(files(folder.path).keys)
        let cache = SyntheticCache(.small(), .text(50, seed: 1))
        try write(cache, as: .session(name, tenant: name), to: store)
        try store.fork(.session(name, tenant: name), to: name + "/" + name)
        #expect(try store.prefix(of: .session(name, tenant: name)).tokenCount == 50)
        let new = Set(files(folder.path).keys).subtracting(before)
        #expect(new.allSatisfy { $0.hasPrefix(path + "/volumes/0") || $0.hasPrefix(path + "/leases") || $0.hasSuffix(".lock") })
        #expect(!new.isEmpty)
    }

    // MARK: - Tenants

    @Test("Nothing of one tenant's is reached through another's name")
    func tenants() throws {
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(200, seed: 1))
        let (mine, theirs) = (SequenceName.session("s", tenant: "a"), SequenceName.session("s", tenant: "b"))
        try write(cache, as: mine, to: store)
        try write(SyntheticCache(.small(), .text(70, seed: 2)), as: .session("own", tenant: "b"), to: store)
        #expect(try store.longestPrefix(of: cache.tokens, model: "small", tenant: "b").tokenCount == 0)
        #expect(try store.sequences(.session, tenant: "b").map(\.name.name) == ["own"])
        for step in [
            { _ = try store.prefix(of: theirs) }, { _ = try store.info(of: theirs) }, { try store.setPinned(true, theirs) },
            { try store.fork(theirs, to: "f") }, { try store.truncate(session: "s", tenant: "b", to: 1) },
            { try store.remove(theirs) },
        ] as [() throws -> Void] { #expect(code(step) == .notFound) }
        let match = try store.longestPrefix(of: cache.tokens, model: "small", tenant: "a")
        #expect(
            code { _ = try store.writer(for: theirs, model: "small", profile: .exact, startingFrom: match) } == .modelMismatch)
        // the same tokens once more are stored apart, and go apart
        try write(cache, as: theirs, to: store)
        try store.setQuota(1, ofTenant: "b")
        _ = try store.makeRoom(ofTenant: "b")
        try store.removeTenant(named: "b")
        let prefix = try store.prefix(of: mine)
        #expect(try prefix.tokenCount == 200 && restored(store, prefix)[1] == cache.bytes(layer: 1, 0..<200))
        try expectSound(store)
    }

    @Test("Looking up what another tenant has stored takes as much work as looking up what nobody has")
    func work() throws {
        let store = try makeStore(in: folder)
        let secret = SyntheticCache(.small(), .text(400, seed: 1))
        for count in [0, 1, 5] {
            for seed in 0..<count {
                let own = SyntheticCache(.small(), .text(300, seed: UInt64(100 + seed)))
                try write(own, as: .session("own\(count)-\(seed)", tenant: "b"), to: store)
            }
            let work = { (tokens: TokenSequence) in try store.recordsRead(lookingUp: tokens, model: "small", tenant: "b") }
            // Where a token sequence stands among one's own depends on its first tokens, so those are others' too.
            let nobodys = TokenSequence.valid([secret.tokens.ids[0]] + Array(TokenSequence.text(399, seed: 2).ids))
            let before = (try work(secret.tokens), try work(nobodys))
            try write(secret, as: .session("s\(count)", tenant: "a"), to: store)
            #expect(try work(secret.tokens) == before.0)
            #expect(try work(nobodys) == before.0)
        }
        #expect(try store.recordsRead(lookingUp: secret.tokens, model: "small", tenant: "a") > 5)
    }

    @Test("The salt is in no description of anything")
    func salt() throws {
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        try write(cache, as: .session("s", tenant: "a"), to: store)
        // the file of salts holds it: 32 bytes, of which any 8 in a text would be a leak
        let identity = try readFile(path + "/identity")
        var text = ""
        dump(store, to: &text)
        for value: Any in [
            try store.prefix(of: .session("s", tenant: "a")), try store.sequences(.session), try store.statistics(),
            try store.verify(),
            try store.tenants(), try store.evictionPlan(to: 0),
        ] {
            dump(value, to: &text)
            text += String(reflecting: value)
        }
        let name = try #require(
            identity.indices.dropLast(33).first { identity[$0] == 1 && identity[$0 + 4] == UInt8(ascii: "a") })
        let salt = identity[(name + 5)...].prefix(32)
        #expect(Set(salt).count > 16, "these are no random bytes")
        let digest = try #require(Digest(bytes: Array(salt)))
        for form in [digest.hex, "\(salt.map { Int($0) })".dropFirst().dropLast().description] {
            #expect(!text.lowercased().contains(form.prefix(16)))
        }
    }
}
