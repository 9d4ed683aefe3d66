import LMDB
import Testing

@Suite("Copying")
struct CopyTests {
    let directory: TemporaryDirectory
    let environment: Environment
    let database: NumberedBytes

    init() throws {
        directory = try TemporaryDirectory()
        environment = try Environment.open(at: directory.file(), configuration: .small())
        database = try environment.numberedBytes()
        try environment.write { transaction in
            for key in 0..<400 { try database.put(UInt64(key), Self.value(key), in: transaction) }
        }
        try environment.write { try database.delete(in: .from(100), in: $0) }
    }

    private static func value(_ key: Int) -> [UInt8] { [UInt8](repeating: UInt8(key & 0xff), count: 2000 + key) }

    @Test("A copy has the same content, and a compacted one no free pages", arguments: [false, true])
    func copy(compacting: Bool) throws {
        try environment.copy(to: directory.file("copy.mdb"), compacting: compacting)
        let copy = try Environment.open(at: directory.file("copy.mdb"), configuration: .small())
        let copied = try copy.numberedBytes()
        try copy.read { transaction in
            expectEqual(try copied.count(in: transaction), 100)
            for key in 0..<100 { expectEqual(try copied.get(UInt64(key), in: transaction), Self.value(key)) }
        }
        #expect(copy !== environment)
        #expect((copy.information.usedBytes < environment.information.usedBytes / 2) == compacting)
        try copy.write { try copied.put(1000, [1], in: $0) }
        #expect(try environment.read { try database.count(in: $0) } == 100)
    }

    @Test("An empty environment can be copied and compacted", arguments: [false, true])
    func copyEmpty(compacting: Bool) throws {
        let empty = try Environment.open(at: directory.file("empty.mdb"), configuration: .small())
        try empty.copy(to: directory.file("copy.mdb"), compacting: compacting)
        let copy = try Environment.open(at: directory.file("copy.mdb"), configuration: .small())
        let database = try copy.numberedBytes()
        try copy.write { try database.put(1, [1], in: $0) }
        #expect(try copy.read { try database.get(1, in: $0) } == [1])
    }

    @Test("A copy never replaces a file, and a failed one leaves none")
    func existingFile() throws {
        try overwrite(directory.file("copy.mdb"), at: 0, with: [1, 2, 3])
        expectError(.fileExists) { try environment.copy(to: directory.file("copy.mdb"), compacting: false) }
        #expect(fileSize(directory.file("copy.mdb")) == 3)
        expectError(.noSuchFile) { try environment.copy(to: directory.file("none/copy.mdb"), compacting: false) }
    }

    @Test("A copy inside a write of the same thread is an error, not a hang; inside a read it works")
    func copyInside() throws {
        try environment.write { transaction in
            expectError(.busy) { try environment.copy(to: directory.file("copy.mdb"), compacting: false) }
            try database.put(1, [1], in: transaction)
        }
        #expect(fileSize(directory.file("copy.mdb")) == -1)
        try environment.read { _ in try environment.copy(to: directory.file("copy.mdb"), compacting: true) }
        #expect(fileSize(directory.file("copy.mdb")) > 0)
    }

    @Test("A copy needs no more readers than there are", arguments: [false, true])
    func oneReader(compacting: Bool) throws {
        let single = try Environment.open(at: directory.file("single.mdb"), configuration: .small { $0.maxReaders = 1 })
        let database = try single.numberedBytes()
        try single.write { try database.put(1, [1], in: $0) }
        #expect(try single.read { try database.get(1, in: $0) } == [1])
        try single.copy(to: directory.file("copy.mdb"), compacting: compacting)
        #expect(try single.read { try database.get(1, in: $0) } == [1])
    }

    @Test("A copy made while others write is of one moment", arguments: [false, true])
    func copyWhileWriting(compacting: Bool) throws {
        let hasBegun = Signal()
        // Every write keeps the two values equal.
        let thread = Thread { [environment, database] in
            for round in 0..<200 {
                do {
                    try environment.write { transaction in
                        let value = [UInt8](repeating: UInt8(round & 0xff), count: 3000 + round)
                        try database.put(5000, value, in: transaction)
                        try database.put(1, value, in: transaction)
                    }
                } catch {
                    Issue.record(error)
                }
                hasBegun.send()
            }
        }
        hasBegun.wait()
        for index in 0..<5 {
            let name = "copy-\(index).mdb"
            try environment.copy(to: directory.file(name), compacting: compacting)
            let copy = try Environment.open(at: directory.file(name), configuration: .small())
            let copied = try copy.numberedBytes()
            try copy.read { transaction in
                expectEqual(try copied.count(in: transaction), 101)
                expectEqual(try copied.get(1, in: transaction), try copied.get(5000, in: transaction))
            }
        }
        thread.join()
    }
}
