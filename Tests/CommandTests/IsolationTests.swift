import Foundation
import Testing

/// What the command line tells, and leaves behind, of what is not to be seen by everybody.
struct IsolationTests {
    private static func withStore(_ body: (Tool) throws -> Void) throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            try tool.write(TinyCache(tokens: 200), "tiny.safetensors")
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile int4 --video v")
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile exact --session s --tenant acme")
            try body(tool)
        }
    }

    /// Commands that read, with all that they can be asked to print.
    private static let reading = [
        "ls", "ls videos", "ls sessions --tenant acme", "ls pages", "show video/v", "show session/s --tenant acme", "stats",
        "verify",
        "verify --quick", "quota", "quota show", "model ls", "model show tiny", "tenant ls",
        "match tiny.safetensors --model tiny --tenant acme", "evict --to 0 --dry-run", "verify --repair --dry-run",
    ]

    /// Twelve bytes of it in hexadecimal or base64 would be a leak.
    private static func tells(_ text: String, _ salt: Data) -> Bool {
        (0...salt.count - 12).contains { start in
            let part = salt.dropFirst(start).prefix(12)
            let hex = part.map { String(format: "%02x", $0) }.joined()
            return text.lowercased().contains(hex) || text.contains(part.base64EncodedString())
        }
    }

    /// The salts, out of the file of identities: header, StoreRecord, SettingsRecord, then each tenant's name and record, which begins with
    /// the salt (schema/FORMAT.md, "Identity").
    private static func salts(in tool: Tool) throws -> [Data] {
        let identity = try tool.bytes(of: "store/identity")
        var offset = identity.startIndex + 64 + 80 + 64
        return try ["acme", "default"].map { name in
            try #require(identity[offset] == UInt8(name.utf8.count) && identity[(offset + 4)...].starts(with: Data(name.utf8)))
            let record = offset + 4 + name.utf8.count
            offset = record + 64
            return Data(identity[record..<record + 32])
        }
    }

    @Test func noOutputTellsASalt() throws {
        try Self.withStore { tool in
            let salts = try Self.salts(in: tool)
            #expect(salts[0] != salts[1])
            let index = try tool.bytes(of: "store/index.mdb")
            var told = ""
            for command in Self.reading {
                for options in ["", " --json"] {
                    let outcome = try tool.run("reelkv \(command)\(options)")
                    #expect(outcome.status == 0, "\(command)\(options): \(outcome.errors)")
                    told += outcome.output + outcome.errors
                }
            }
            for command in [
                "show session/none", "tenant add acme", "match none.safetensors --model tiny", "rm session/s",
                "tenant rekey acme --new-key-file none.key", "import tiny.safetensors --model other --profile int4",
            ] { told += try tool.fail("reelkv \(command)") }
            #expect(told.utf8.count > 10_000)
            for salt in salts {
                #expect(index.range(of: salt) != nil, "the index has another salt")
                #expect(!Self.tells(told, salt))
                // the search finds what it is for
                #expect(Self.tells("x" + salt.map { String(format: "%02X", $0) }.joined(), salt))
                #expect(Self.tells(Data([1, 2] + salt).base64EncodedString(), salt))
            }
        }
    }

    @Test func filesAreForTheirOwnerAlone() throws {
        try Tool.withFolder { tool in
            try tool.write(TinyCache(tokens: 200), "tiny.safetensors")
            // a file that everybody may read is in the place of what is exported
            try tool.succeed("umask 0 && echo before >exported.safetensors && chmod 666 exported.safetensors")
            try tool.write(TinyCache.spec(), "tiny.json")
            for command in [
                "init --page-tokens 64", "model add tiny --spec tiny.json",
                "import tiny.safetensors --model tiny --profile int4 --video v", "tenant new-key acme.key",
                "tenant add acme --new-key-file acme.key",
                "import tiny.safetensors --model tiny --profile exact --session s --tenant acme --key-file acme=acme.key",
                "export video/v exported.safetensors --force", "export video/v new.safetensors", "compact --quiet",
                "scrub --quiet",
                "verify --repair --key-file acme.key --quiet", "quota set --bytes 1GiB", "evict --to 1GiB",
            ] { try tool.succeed("umask 0 && reelkv \(command)") }
            let modes = try tool.succeed("find store exported.safetensors new.safetensors acme.key -printf '%y %m %p\\n'")
            for line in modes.split(separator: "\n") { #expect(line.hasPrefix("f 600 ") || line.hasPrefix("d 700 "), "\(line)") }
            #expect(modes.split(separator: "\n").count > 8)
        }
    }

    @Test func lookingChangesNothing() throws {
        try Self.withStore { tool in
            // lock files hold LMDB's table of readers
            let state = "find store -type d -printf '%p %T@\\n' -o -not -name '*-lock' -printf '%p %T@ ' -exec sha256sum {} \\;"
            let before = try tool.succeed(state)
            for command in [
                "ls", "ls pages", "show video/v --json", "stats", "verify --skip-pages", "quota", "model ls", "model show tiny",
                "tenant ls",
                "evict --to 0 --dry-run",
            ] { try tool.succeed("reelkv \(command)") }
            #expect(try tool.succeed(state) == before)
            try tool.succeed("reelkv pin session/s --tenant acme")
            #expect(try tool.succeed(state) != before)
        }
    }
}
