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

    @Test("A copy of the identities that was left behind, open to others, opens nothing to them")
    func leftoverModes() throws {
        let store = try Store.create(at: path)
        try writeFile(path + "/identity-new", with: [1, 2, 3])
        try #require(chmod(path + "/identity-new", 0o644) == 0)
        try store.addModel(.small())
        #expect((files(path)[path + "/identity"]?.st_mode ?? 0) & 0o777 == 0o600)
        #expect(!TemporaryFolder.names(path).contains("identity-new"))
    }

    private static let steps: [(what: String, step: @Sendable (Store) throws -> Void)] = [
        ("write", { try write(SyntheticCache(.small(), .text(300, seed: 2)), as: .session("s"), to: $0) }),
        (
            "read",
            { store in
                let found = try restored(store, try store.prefix(of: .video("v")))[0]
                #expect(found == SyntheticCache(.small(), .text(100, seed: 1)).bytes(layer: 0, 0..<100))
            }
        ),
        ("add a model", { try $0.addModel(.small("other", fingerprint: 9)) }),
        ("set a quota", { try $0.update { $0.quotaBytes = 64 << 20 } }),
        ("make room", { _ = try $0.makeRoom() }),
        ("compact", { _ = try $0.compact(CompactionOptions()) }),
        ("scrub", { _ = try $0.scrubStep(bytesMax: 1 << 20) }),
        ("repair", { _ = try $0.repair() }),
        ("remove", { try $0.remove(.video("v")) }),
    ]

    /// What is refused where one of the store's files or folders is a link; nil for everything.
    static let refusals: [String: Set<String>?] = [
        "volumes": nil, "leases": nil, "index.mdb": nil, "index.mdb-lock": nil, "index.2.mdb": nil,
        "volumes/00000001.mdb": ["write", "read", "repair", "remove"], "volumes/00000001.mdb-lock": ["read", "repair"],
        "space.lock": ["make room"], "compact.lock": ["compact", "repair"], "scrub.lock": ["scrub"],
        // a link is never opened there: what is written takes its place
        "identity": [], "identity-new": ["add a model", "set a quota"],
    ]

    @Test(
        "A symbolic link in place of one of the store's files or folders is not followed, and is named by what needs it",
        arguments: refusals.keys.sorted())
    func links(name: String) async throws {
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
        var refused: [String: String] = [:]
        for (what, step) in Self.steps {
            do { try step(try Store(opening: path)) } catch { refused[what] = "\(error)" }
        }
        let after = files(outside).mapValues { [Int($0.st_size), Int($0.st_mtim.tv_sec), Int($0.st_mtim.tv_nsec)] }
        #expect(before == after, "\(name) was followed")
        let expected = try #require(Self.refusals[name]) ?? Set(Self.steps.map(\.what))
        #expect(Set(refused.keys) == expected, "\(refused)")
        let place = path + "/" + name
        #expect(
            refused.values.allSatisfy {
                $0.contains("\(place) is a symbolic link") || $0.contains("\(place): it is a symbolic link")
            })
        // it stands, or went with its volume
        let kind = files(path)[place].map { $0.st_mode & S_IFMT }
        #expect(name == "identity" ? kind == S_IFREG : kind == nil || kind == S_IFLNK)
    }

    @Test("What a link stands in for is out of reach, not lost", arguments: [false, true])
    func linkedVolume(isDangling: Bool) throws {
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        do {
            let store = try Store.create(at: path)
            try store.addModel(.small())
            try write(cache, as: .video("v"), to: store)
        }
        let (place, moved) = (path + "/volumes/00000001.mdb", folder.path + "/moved")
        try #require(rename(place, moved) == 0)
        try #require(symlink(isDangling ? folder.path + "/nothing" : moved, place) == 0)
        do {
            let store = try Store(opening: path)
            let prefix = try store.prefix(of: .video("v"))
            for _ in 0..<2 {
                let error = #expect(throws: StoreError.self) { try restored(store, prefix) }
                #expect(error?.code == .inputOutput && error?.message.contains("symbolic link") == true)
            }
            #expect(throws: StoreError.self) { try write(cache, as: .session("again"), to: store) }
            #expect(try !store.verify(quarantining: true).isSound)
            let refusal = #expect(throws: StoreError.self) { try store.repair() }
            #expect(refusal?.message.contains("symbolic link") == true)
            #expect(refusal?.message.contains("nothing was repaired") == true)
            #expect(try store.longestPrefix(of: cache.tokens, model: "small").tokenCount == 100)
        }
        try #require(unlink(place) == 0 && rename(moved, place) == 0)
        let store = try Store(opening: path)
        #expect(try restored(store, try store.prefix(of: .video("v")))[0] == cache.bytes(layer: 0, 0..<100))
        try expectSound(store)
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

    @Test("An error about another tenant's sequence is the one about a sequence that nobody has")
    func errorTexts() throws {
        let store = try makeStore(in: folder)
        try write(SyntheticCache(.small(), .text(200, seed: 1)), as: .session("taken", tenant: "a"), to: store)
        try write(SyntheticCache(.small(), .text(200, seed: 1)), as: .video("taken", tenant: "a"), to: store)
        try write(SyntheticCache(.small(), .text(70, seed: 2)), as: .session("own", tenant: "b"), to: store)
        func messages(_ name: String) -> [String] {
            [.session(name, tenant: "b"), .video(name, tenant: "b")].flatMap { (sequence: SequenceName) in
                [
                    { _ = try store.prefix(of: sequence) }, { _ = try store.info(of: sequence) }, { try store.remove(sequence) },
                    { try store.setPinned(true, sequence) }, { try store.fork(sequence, to: "f") },
                    { try store.truncate(session: name, tenant: "b", to: 1) },
                ].map { (step: () throws -> Void) in
                    do { try step() } catch { return "\(error)".replacing(name, with: "NAME") }
                    return "no error"
                }
            }
        }
        let (taken, free) = (messages("taken"), messages("free"))
        #expect(taken == free && taken.count == 12 && taken.allSatisfy { $0.contains("NAME") }, "\(taken)")
        // names are each tenant's own: what another has is free to be taken, and stays as it is
        try store.fork(.session("own", tenant: "b"), to: "taken")
        #expect(try store.prefix(of: .session("taken", tenant: "b")).tokenCount == 70)
        #expect(try store.prefix(of: .session("taken", tenant: "a")).tokenCount == 200)
    }

    // MARK: - The salt

    /// The salt of the tenant `a`, which is the only one, out of the file of identities (schema/FORMAT.md, "Identity").
    private func salt() throws -> [UInt8] {
        let identity = try readFile(path + "/identity")
        let tenant = 64 + 80 + 64
        try #require(Array(identity[tenant..<tenant + 5]) == [1, 0, 0, 0, UInt8(ascii: "a")])
        let salt = Array(identity[tenant + 5..<tenant + 5 + 32])
        // the index has the same 32 bytes, so these are what the tenant's chains are keyed with
        let index = try readFile(path + "/index.mdb")
        try #require(index.indices.dropLast(31).contains { index[$0] == salt[0] && index[$0..<$0 + 32].elementsEqual(salt) })
        return salt
    }

    /// What a text would hold that gave away a third of a salt: its bytes in hexadecimal, in decimal, in base64, or as they are.
    private func traces(of salt: [UInt8]) -> [String] {
        (0..<salt.count - 11).flatMap { start in
            let part = Array(salt[start..<start + 12])
            return [
                part.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(), part.map { "\($0)" }.joined(separator: ", "),
                Self.base64(part), String(decoding: part, as: UTF8.self),
            ]
        }
    }

    private static func base64(_ bytes: [UInt8]) -> String {
        let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        return String(
            stride(from: 0, to: bytes.count - 2, by: 3).flatMap { start in
                let word = bytes[start..<start + 3].reduce(0) { $0 << 8 | Int($1) }
                return [18, 12, 6, 0].map { letters[word >> $0 & 63] }
            })
    }

    private static func holds(_ text: String, _ traces: [String]) -> Bool {
        let lowered = text.lowercased()
        return traces.contains { text.contains($0) || lowered.contains($0) }
    }

    @Test("The salt is in nothing that the store says of itself, nor in an error")
    func saltInDescriptions() throws {
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(100, seed: 1))
        let name = SequenceName.session("s", tenant: "a")
        try write(cache, as: name, to: store)
        let (salt, key) = (try salt(), EncryptionKey.random())
        var text = ""
        func tell(_ value: Any) {
            dump(value, to: &text)
            text += "\(value)\n" + String(reflecting: value) + "\n"
        }
        tell(store)
        let values: [Any] = [
            try store.prefix(of: name), try store.info(of: name), try store.sequences(.session), try store.statistics(),
            try store.verify(), try store.tenants(), try store.tenantInfos(), try store.space(), try store.settings(),
            try store.models(), try store.pages(), try store.evictionPlan(to: 0), try store.scrubStep(bytesMax: 1 << 20) as Any,
            try store.lease(try store.prefix(of: name)), try store.repair(isDryRun: true),
            try store.writer(for: name, model: "small", profile: .exact), try store.compact(),
        ]
        for value in values { tell(value) }
        for step in [
            { _ = try store.prefix(of: .session("other", tenant: "a")) }, { try store.createTenant(named: "a") },
            { try store.unlock(tenant: "a", with: key) }, { try store.rekey(tenant: "a", to: key) },
            { try store.setQuota(-1, ofTenant: "a") }, { try store.removeTenant(named: "nobody") },
            { _ = try store.writer(for: name, model: "none", profile: .exact) },
        ] as [() throws -> Void] {
            do { try step() } catch { tell(error) }
        }
        try store.createTenant(named: "b", key: key)
        tell(store)
        for value: Any in [
            try store.tenantInfos(), try store.writer(for: .session("s", tenant: "b"), model: "small", profile: .exact),
        ] {
            tell(value)
        }
        #expect(!text.contains(key.hex.prefix(24)))
        // the search finds what it is for
        let traces = traces(of: salt)
        let digest = try #require(Digest(bytes: salt))
        #expect(Self.holds("salt \(digest.hex.uppercased())", traces) && Self.holds("\(salt)", traces))
        #expect(Self.holds(Self.base64(salt), traces) && Self.holds(Self.base64([1] + salt), traces))
        #expect(text.utf8.count > 5_000 && !Self.holds(text, traces))
    }
}
