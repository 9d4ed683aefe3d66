import Dispatch
import KVCodec
import ReelKV
import Safetensors
import Testing

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Stores that older versions have written: read, brought up to date when they are opened for writing, and gone on with.
@Suite("Golden stores")
struct GoldenStoreTests {
    private static let stores = "\(#filePath)".replacingSuffix("Tests/ReelKVTests/GoldenStoreTests.swift")
    private static let versions = [1, 2, 3]
    private static let files = ["index.mdb", "identity", "volumes/00000001.mdb"]

    private static func copy(_ version: Int, to path: String) throws {
        mkdir(path, 0o700)
        for name in files where access("\(stores)/v\(version)/\(name)", R_OK) == 0 {
            try writeFile("\(path)/\(name)", with: try readFile("\(stores)/v\(version)/\(name)"), makingFolder: true)
        }
    }

    private func bytes(_ path: String) throws -> [[UInt8]] {
        try ["index.mdb", "volumes/00000001.mdb"].map { try readFile(path + "/" + $0) }
    }

    /// What a file holds of a layer, keys then values.
    private func exported(_ name: String, layer: Int) throws -> [UInt8] {
        let file = try SafetensorsFile(path: Self.stores + "/" + name + ".safetensors")
        return try ["key", "value"].flatMap { try file.withBytes(of: "layers.\(layer).\($0)") { Array($0) } }
    }

    /// The bits of bfloat16 numbers.
    private static func units(_ bytes: [UInt8]) -> [Int] {
        stride(from: 0, to: bytes.count - 1, by: 2).map { Int(bytes[$0]) | Int(bytes[$0 + 1]) << 8 }
    }

    private func expectContents(_ store: Store, version: Int, tenant: String = Store.defaultTenant) throws {
        for (name, file) in [
            (SequenceName.video("v", tenant: tenant), "video"), (.session("s", tenant: tenant), "session"),
            (.session("lossy", tenant: tenant), "v\(version)-lossy"),
        ] {
            let prefix = try store.prefix(of: name)
            #expect(prefix.tokenCount == (file == "session" ? 90 : 70))
            #expect(prefix.isExact == (name.name != "lossy"))
            let match = try store.longestPrefix(of: try store.tokens(of: prefix), model: "tiny", tenant: tenant)
            #expect(match.tokenCount == prefix.tokenCount, "version \(version), \(name)")
            for (layer, found) in try restored(store, match).enumerated() {
                let expected = try exported(file, layer: layer)
                #expect(found.count == expected.count)
                if prefix.isExact { #expect(found == expected, "version \(version), \(name), layer \(layer)") }
                let isNear = zip(Self.units(found), Self.units(expected)).allSatisfy { abs($0 - $1) <= 1 }
                #expect(isNear, "version \(version), \(name), layer \(layer)")
            }
        }
    }

    @Test("Every version's store is read, brought up to date and gone on with", arguments: versions)
    func openedForWriting(version: Int) throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        try Self.copy(version, to: path)
        do {
            let store = try Store(opening: path)
            try expectContents(store, version: version)
            try expectSound(store)
            let video = try store.prefix(of: .video("v"))
            let more = try store.writer(for: .session("more"), model: "tiny", profile: .exact, startingFrom: video)
            let cache = SyntheticCache(try store.model(named: "tiny"), .text(40, seed: 1))
            try more.append(cache.tokens, layers: try cache.layers(0..<40))
            try more.finish()
            #expect(try store.prefix(of: .session("more")).tokenCount == 110)
            try expectSound(store)
        }
        // Closed and opened again, read-only: it is of the newest version now.
        let store = try Store(opening: path, access: .readOnly)
        try expectContents(store, version: version)
    }

    @Test("A store of version 2 is read as it is; one of version 1 says what to do")
    func openedForReading() throws {
        let folder = TemporaryFolder()
        try Self.copy(2, to: folder.path + "/v2")
        let before = try bytes(folder.path + "/v2")
        try expectContents(try Store(opening: folder.path + "/v2", access: .readOnly), version: 2)
        #expect(try bytes(folder.path + "/v2") == before)
        try Self.copy(1, to: folder.path + "/v1")
        let old = try bytes(folder.path + "/v1")
        let error = #expect(throws: StoreError.self) { try Store(opening: folder.path + "/v1", access: .readOnly) }
        #expect(error.map { "\($0)".contains("open it for writing once") } ?? false)
        #expect(try bytes(folder.path + "/v1") == old)
    }

    @Test("Whenever bringing it up to date is interrupted, the store is whole", arguments: [1, 2])
    func interrupted(version: Int) async throws {
        for round in 0..<15 {
            let folder = TemporaryFolder()
            try Self.copy(version, to: folder.path + "/store")
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = folder.path + "/store" as String, round = round as Int] in
                DispatchQueue.global().async {
                    usleep(UInt32(round * round * 60))
                    kill(getpid(), SIGKILL)
                }
                _ = try Store(opening: path)
                pause()
            }
            let store = try Store(opening: folder.path + "/store")
            try expectContents(store, version: version)
            #expect(try store.verify().problems.allSatisfy { $0.kind == .identity })
        }
    }

    // MARK: - The encrypted tenant of version 4

    /// A key file beside the stores: key files are for their owner alone, and those of a checkout need not be.
    private static func key(_ name: String, in folder: TemporaryFolder) throws -> EncryptionKey {
        let path = folder.path + "/" + name
        try writeFile(path, with: try readFile("\(stores)/\(name)"))
        chmod(path, 0o600)
        return try EncryptionKey(contentsOf: path)
    }

    private func code(_ body: () throws -> Void) -> StoreError.Code? {
        do { try body() } catch { return (error as? StoreError)?.code }
        return nil
    }

    @Test("Version 4: with its key an encrypted tenant is read, gone on with and sealed anew")
    func withKey() throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        let key = try Self.key("v4.key", in: folder)
        try Self.copy(4, to: path)
        do {
            let store = try Store(opening: path)
            try store.unlock(tenant: "acme", with: key)
            try expectContents(store, version: 4, tenant: "acme")
            try expectSound(store)
            #expect(try store.verify().lockedNodes == 0)
            let video = try store.prefix(of: .video("v", tenant: "acme"))
            let more = try store.writer(
                for: .session("more", tenant: "acme"), model: "tiny", profile: .exact, startingFrom: video)
            let cache = SyntheticCache(try store.model(named: "tiny"), .text(40, seed: 1))
            try more.append(cache.tokens, layers: try cache.layers(0..<40))
            try more.finish()
            // what was written before the tenant got this key is sealed with the data key before
            let info = try #require(store.tenantInfos().first { $0.name == "acme" })
            #expect(info.isEncrypted && info.hasEarlierKeys && info.keyGeneration == 2)
            var options = CompactionOptions()
            options.reseals = true
            #expect(try store.compact(options).pagesCopied > 0)
            #expect(try store.tenantInfos().allSatisfy { !$0.hasEarlierKeys })
        }
        let store = try Store(opening: path, access: .readOnly)
        try store.unlock(tenant: "acme", with: key)
        try expectContents(store, version: 4, tenant: "acme")
        #expect(try store.prefix(of: .session("more", tenant: "acme")).tokenCount == 110)
    }

    @Test("Version 4: without the key names are listed and checksums checked; reading says what is missing")
    func withoutKey() throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store"
        try Self.copy(4, to: path)
        let before = try bytes(path)
        let store = try Store(opening: path, access: .readOnly)
        #expect(try store.tenantInfos().map { [$0.isEncrypted, $0.isUnlocked] } == [[true, false], [false, true]])
        let listed = try store.sequences(.video) + store.sequences(.session)
        #expect(
            listed.map { "\($0.name.tenant) \($0.name)" } == [
                "acme video/v", "default video/v", "acme session/lossy", "acme session/s",
            ])
        #expect(listed.map(\.isLocked) == [true, false, true, true])
        let error = #expect(throws: StoreError.self) { try store.prefix(of: .video("v", tenant: "acme")) }
        #expect(error?.code == .keyRequired && error.map { "\($0)".contains("give its key") } ?? false)
        let report = try store.verify(depth: .checksums)
        #expect(report.isSound && report.lockedNodes == 7 && report.pages == 10)
        // the tenant that is not encrypted is read as ever
        let plain = try store.prefix(of: .video("v"))
        for (layer, found) in try restored(store, plain).enumerated() { #expect(try found == exported("video", layer: layer)) }
        #expect(
            code { _ = try store.longestPrefix(of: try store.tokens(of: plain), model: "tiny", tenant: "acme") } == .keyRequired)
        #expect(try bytes(path) == before)
    }

    @Test("Version 4: a key that was the tenant's before, and one that never was, open nothing")
    func wrongKeys() throws {
        let folder = TemporaryFolder()
        try Self.copy(4, to: folder.path + "/store")
        let store = try Store(opening: folder.path + "/store", access: .readOnly)
        for key in [try Self.key("v4-earlier.key", in: folder), .random()] {
            let error = #expect(throws: StoreError.self) { try store.unlock(tenant: "acme", with: key) }
            #expect(error?.code == .wrongKey && error.map { "\($0)".contains("not the key of tenant 'acme'") } ?? false)
        }
        #expect(code { _ = try store.prefix(of: .video("v", tenant: "acme")) } == .keyRequired)
    }
}

extension String {
    /// The folder of golden stores, from the path of this file.
    fileprivate func replacingSuffix(_ suffix: String) -> String { dropLast(suffix.count) + "schema/vectors/stores" }
}
