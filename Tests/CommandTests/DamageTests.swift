import Foundation
import Testing

/// Stores that are not what they were: nothing of them is taken for good, and nothing crashes.
struct DamageTests {
    /// Where page images begin in a volume: their magic number.
    private static let pageMagic = Data([0x89, 0x52, 0x4B, 0x56, 0x50, 0x0D, 0x0A, 0x1A])
    /// The store's record in the index begins so.
    private static let storeMagic = Data([0x89, 0x52, 0x45, 0x45, 0x4C, 0x4B, 0x56, 0x0A])

    private static func withStore(_ body: (Tool) throws -> Void) throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            try tool.write(TinyCache(tokens: 200), "tiny.safetensors")
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile int4 --video v")
            try body(tool)
        }
    }

    /// Changes a file of the store; the bytes in it that begin with `mark`, each time they occur.
    private static func change(
        _ name: String, in tool: Tool, at mark: Data, _ change: (inout Data, _ start: Int, _ index: Int) -> Void
    ) throws -> Int {
        var data = try tool.bytes(of: name)
        var found = 0
        var from = data.startIndex
        while let place = data.range(of: mark, in: from..<data.endIndex) {
            change(&data, place.lowerBound, found)
            found += 1
            from = place.upperBound
        }
        let handle = try FileHandle(forWritingTo: tool.folder.appending(path: name))
        try handle.write(contentsOf: data)
        try handle.close()
        return found
    }

    private static let volume = "store/volumes/00000001.mdb"

    /// A byte in the second page: the pages before it stay what they are, it and what follows it count as absent.
    @Test func damagedPageIsAbsent() throws {
        try Self.withStore { tool in
            let pages = try Self.change(Self.volume, in: tool, at: Self.pageMagic) { data, start, index in
                if index == 1 { data[start + 2500] ^= 0x10 }
            }
            #expect(pages == 4)
            #expect(try tool.run("reelkv verify --skip-pages").status == 0)
            // nobody has read it yet
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("200 of 200"))
            #expect(try tool.fail("reelkv export video/v out.safetensors").contains("64..<128 is damaged"))
            #expect(!tool.exists("out.safetensors"))
            let match = try tool.succeed("reelkv match tiny.safetensors --model tiny")
            #expect(match.hasPrefix("64 of 200 tokens are stored: the next page is damaged"))
            #expect(try tool.fail("reelkv export video/v out.safetensors").contains("only the first 64 of the 200 tokens"))
            try tool.succeed("reelkv export video/v out.safetensors --tokens :64")
            #expect(try tool.succeed("reelkv show video/v").contains("only the first 64 tokens can be read"))
            #expect(try tool.succeed("reelkv ls pages").contains("damaged"))
            // importing again repairs it
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile int4 --video v")
            try tool.succeed("reelkv export video/v whole.safetensors")
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("200 of 200"))
        }
    }

    /// What a verification finds counts as absent from then on, and can be imported again.
    @Test func verificationMarksDamage() throws {
        try Self.withStore { tool in
            _ = try Self.change(Self.volume, in: tool, at: Self.pageMagic) { data, start, index in
                if index == 1 { data[start + 2500] ^= 0x10 }
            }
            let verify = try tool.run("reelkv verify")
            #expect(verify.status == 1)
            #expect(verify.output.contains("page ") && verify.output.contains("checksum"))
            #expect(verify.errors.contains("not sound, 1 problem found"))
            #expect(try tool.succeed("reelkv verify").contains("1 page failed a checksum before"))
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("64 of 200"))
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile int4 --video v")
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("200 of 200"))
        }
    }

    /// A volume that is gone makes its pages absent, so that they can be imported again.
    @Test func lostVolumeIsReplaced() throws {
        try Self.withStore { tool in
            try FileManager.default.removeItem(at: tool.folder.appending(path: Self.volume))
            #expect(try tool.fail("reelkv export video/v out.safetensors").contains("00000001.mdb is gone"))
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("0 of 200"))
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile int4 --video v")
            try tool.succeed("reelkv export video/v out.safetensors")
            try tool.succeed("reelkv verify")
        }
    }

    @Test func newerVersionsStoreIsRefused() throws {
        try Self.withStore { tool in
            let found = try Self.change("store/index.mdb", in: tool, at: Self.storeMagic) { data, start, _ in
                data[start + 8] = 9  // format version
                data[start + 10] = 9  // the oldest version that understands it
            }
            #expect(found > 0)
            for command in [
                "ls", "stats", "verify", "model rm tiny", "rm video/v", "import tiny.safetensors --model tiny --profile exact",
            ] {
                #expect(try tool.fail("reelkv \(command)").contains("upgrade ReelKV"))
            }
        }
    }

    @Test(arguments: ["index.mdb", "volumes/00000001.mdb"], [0, 100, 5000, -4096])
    func cutFileIsAnError(file: String, length: Int) throws {
        try Self.withStore { tool in
            let data = try tool.bytes(of: "store/\(file)")
            let kept = data.prefix(length < 0 ? data.count + length : length)
            try kept.write(to: tool.folder.appending(path: "store/\(file)"))
            for command in [
                "export video/v out.safetensors", "verify", "import tiny.safetensors --model tiny --profile exact --video w",
            ] {
                let outcome = try tool.run("reelkv \(command)")
                #expect(outcome.status == 0 || outcome.status == 1, "\(command): \(outcome.errors)")
                if command != "verify", file == "index.mdb" { #expect(outcome.status == 1, "\(command)") }
            }
            #expect(!tool.exists("out.safetensors"))
        }
    }

    /// Bytes anywhere in the files: every command ends in success or in an error.
    @Test func scatteredDamageNeverCrashes() throws {
        try Self.withStore { tool in
            let whole = ["store/index.mdb", Self.volume].map { ($0, try? tool.bytes(of: $0)) }
            var random = SeededGenerator(11)
            for round in 0..<12 {
                for (name, data) in whole {
                    guard var damaged = data else { continue }
                    // the first two pages are LMDB's own, which has no checksums: see the format's assumptions about the disk
                    for _ in 0..<4 {
                        damaged[Int.random(in: 8192..<damaged.count, using: &random)] = .random(in: 0...255, using: &random)
                    }
                    if name == Self.volume || round % 3 == 0 { try damaged.write(to: tool.folder.appending(path: name)) }
                }
                for command in [
                    "verify", "export video/v out.safetensors --force", "match tiny.safetensors --model tiny", "stats",
                ] {
                    let outcome = try tool.run("reelkv \(command)")
                    #expect(outcome.status == 0 || outcome.status == 1, "round \(round), \(command): \(outcome.errors)")
                }
                for (name, data) in whole { try data?.write(to: tool.folder.appending(path: name)) }
            }
        }
    }
}
