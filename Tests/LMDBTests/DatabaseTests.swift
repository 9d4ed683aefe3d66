import LMDB
import Testing

@Suite("Database")
struct DatabaseTests {
    let directory: TemporaryDirectory
    let environment: Environment
    let database: NumberedBytes

    init() throws {
        directory = try TemporaryDirectory()
        environment = try Environment.open(at: directory.file(), configuration: .small())
        database = try environment.numberedBytes()
    }

    @Test("What is put can be read, replaced, counted and deleted")
    func basics() throws {
        try environment.write { transaction in
            expectEqual(try database.get(1, in: transaction), nil)
            try database.put(1, [1, 2, 3], in: transaction)
            try database.put(2, [], in: transaction)
            expectEqual(try database.get(1, in: transaction), [1, 2, 3])
        }
        try environment.read { transaction in
            expectEqual(try database.get(1, in: transaction), [1, 2, 3])
            expectEqual(try database.get(2, in: transaction), [])
            expectTrue(try database.contains(2, in: transaction))
            expectTrue(try !database.contains(3, in: transaction))
            expectEqual(try database.count(in: transaction), 2)
        }
        try environment.write { transaction in
            try database.put(1, [9], in: transaction)
            expectTrue(try database.delete(2, in: transaction))
            expectTrue(try !database.delete(2, in: transaction))
        }
        try environment.read { transaction in
            expectEqual(try database.get(1, in: transaction), [9])
            expectEqual(try database.count(in: transaction), 1)
        }
        try environment.write { try database.clear(in: $0) }
        expectEqual(try environment.read { try database.count(in: $0) }, 0)
    }

    @Test("insert keeps what is there, append refuses what does not sort last")
    func insertAndAppend() throws {
        try environment.write { transaction in
            expectTrue(try database.insert(5, [5], in: transaction))
            expectTrue(try !database.insert(5, [6], in: transaction))
            try database.append(7, [7], in: transaction)
            expectError(.keyExists) { try database.append(6, [6], in: transaction) }
            expectError(.keyExists) { try database.append(7, [8], in: transaction) }
        }
        try environment.read { transaction in
            expectEqual(try database.get(5, in: transaction), [5])
            expectEqual(try database.get(7, in: transaction), [7])
            expectEqual(try database.count(in: transaction), 2)
        }
    }

    @Test("A reserved value is written in place, whatever its size", arguments: [0, 1, 100, 2000, 4096, 5000, 300_000])
    func reserve(byteCount: Int) throws {
        var random = SeededGenerator(seed: UInt64(byteCount))
        let bytes = random.bytes(byteCount)
        try environment.write { transaction in
            try database.put(1, [1, 2, 3], in: transaction)
            try database.reserve(1, byteCount: byteCount, in: transaction) { room in
                #expect(room.count == byteCount)
                room.copyBytes(from: bytes)
            }
        }
        expectEqual(try environment.read { try database.get(1, in: $0) }, bytes)
        try environment.read { transaction in
            let isSame = try database.withValue(1, in: transaction) { $0.elementsEqual(bytes) }
            #expect(isSame == true)
            let value = try #require(try database.unsafeValue(1, in: transaction))
            Environment.adviseWillNeed(value)
            // It was written a moment ago.
            #expect(Environment.isInMemory(value) && Environment.isInMemory(UnsafeRawBufferPointer(start: nil, count: 0)))
            #expect(value.elementsEqual(bytes))
        }
    }

    @Test("A reservation that is not filled takes the whole transaction back, even if the error is swallowed")
    func unfilledReservation() throws {
        try environment.write { try database.put(1, [1], in: $0) }
        #expect(throws: Interruption.self) {
            try environment.write { transaction in
                try database.reserve(1, byteCount: 10, in: transaction) { _ in throw Interruption() }
            }
        }
        expectError(.badTransaction) {
            try environment.write { transaction -> Void in
                try database.put(2, [2], in: transaction)
                try? database.reserve(1, byteCount: 10, in: transaction) { _ in throw Interruption() }
            }
        }
        try environment.read { transaction in
            expectEqual(try database.get(1, in: transaction), [1])
            expectEqual(try database.get(2, in: transaction), nil)
        }
    }

    @Test("Nothing else can be written while a reservation is being filled")
    func writeWhileFilling() throws {
        try environment.write { transaction in
            try database.reserve(1, byteCount: 4, in: transaction) { room in
                expectError(.busy) { try database.put(2, [2], in: transaction) }
                expectError(.busy) { try database.delete(2, in: transaction) }
                room.copyBytes(from: [1, 2, 3, 4])
            }
            try database.put(3, [3], in: transaction)
        }
        expectEqual(try environment.read { try database.get(1, in: $0) }, [1, 2, 3, 4])
        expectEqual(try environment.read { try database.get(3, in: $0) }, [3])
    }

    @Test("Keys have 1 to 511 bytes, and others never reach LMDB", arguments: [0, 1, 511, 512, 5000])
    func keySizes(count: Int) throws {
        let database = try environment.database(named: "raw", keys: RawBytes.self, values: EmptyValue.self, creating: true)
        let key = [UInt8](repeating: 7, count: count)
        let isAllowed = (1...511).contains(count)
        func check(_ operation: () throws -> Void) {
            if isAllowed {
                #expect(throws: Never.self) { try operation() }
            } else {
                expectError(.badValueSize) { try operation() }
            }
        }
        try environment.write { transaction in
            check { try database.put(key, (), in: transaction) }
            check { expectTrue(try database.contains(key, in: transaction)) }
            check { expectTrue(try database.get(key, in: transaction) != nil) }
            check { expectTrue(try database.delete(key, in: transaction)) }
            check { _ = try database.firstEntry(atOrAfter: key, in: transaction) }
            check { _ = try database.lastEntry(atOrBefore: key, in: transaction) }
            check { try database.reserve(key, byteCount: 0, in: transaction) { _ in } }
        }
    }

    @Test("A value size that makes no sense is an error")
    func badValueSize() throws {
        for count in [-1, Int.min, LMDBLimits.maxValueSize + 1, Int.max] {
            try environment.write { transaction in
                expectError(.badValueSize) {
                    try database.reserve(1, byteCount: count, in: transaction) { _ in Issue.record("filled") }
                }
            }
        }
    }

    @Test("A handle is good for every later transaction, and the same name gives the same database")
    func handles() throws {
        for round in 0..<10 {
            try environment.write { try database.put(UInt64(round), [UInt8(round)], in: $0) }
            let again = try environment.numberedBytes()
            expectEqual(try environment.read { try again.count(in: $0) }, round + 1)
        }
        let other = try environment.numberedBytes("other")
        expectEqual(try environment.read { try other.count(in: $0) }, 0)
        let unnamed = try environment.database(named: nil, keys: UTF8String.self, values: RawBytes.self)
        try environment.read { transaction in
            var names: [String] = []
            try unnamed.forEachRaw(in: .all, in: transaction) { key, _ in
                names.append(String(decoding: key, as: UTF8.self))
                return .continue
            }
            #expect(names == ["bytes", "other"])
        }
    }

    @Test("A database that does not exist is created only on request")
    func missingDatabase() throws {
        expectError(.notFound) {
            try environment.database(named: "none", keys: RawBytes.self, values: RawBytes.self)
        }
        _ = try environment.database(named: "none", keys: RawBytes.self, values: RawBytes.self, creating: true)
        _ = try environment.database(named: "none", keys: RawBytes.self, values: RawBytes.self)
    }

    @Test("Database names that LMDB cannot hold are refused", arguments: ["", "a\u{0}b", String(repeating: "n", count: 512)])
    func badNames(name: String) {
        expectError(.badValueSize) { try environment.numberedBytes(name) }
    }

    @Test("A record is not taken for a database")
    func recordAsDatabase() throws {
        let unnamed = try environment.database(named: nil, keys: UTF8String.self, values: RawBytes.self)
        try environment.write { try unnamed.put("record", [1, 2, 3], in: $0) }
        expectError(.incompatible) { try environment.numberedBytes("record") }
    }

    @Test("More databases than were asked for are an error, and the others go on working")
    func tooManyDatabases() throws {
        let configuration = Environment.Configuration.small { $0.maxDatabases = 2 }
        let environment = try Environment.open(at: directory.file("few.mdb"), configuration: configuration)
        let first = try environment.numberedBytes("a")
        _ = try environment.numberedBytes("b")
        expectError(.databasesFull) { try environment.numberedBytes("c") }
        try environment.write { try first.put(1, [1], in: $0) }
        expectEqual(try environment.read { try first.get(1, in: $0) }, [1])
    }

    @Test("Databases are opened outside of transactions")
    func openingInside() throws {
        try environment.read { _ in
            _ = try environment.numberedBytes()
            expectError(.busy) { try environment.numberedBytes("new") }
        }
        try environment.write { _ in
            _ = try environment.numberedBytes()
            expectError(.busy) { try environment.numberedBytes("new") }
        }
    }

    @Test("A handle that is younger than the transaction, or of another environment, is an error")
    func foreignHandles() throws {
        let other = try Environment.open(at: directory.file("other.mdb"), configuration: .small())
        let foreign = try other.numberedBytes()
        try environment.write { transaction in
            expectError(.badDatabase) { try foreign.get(1, in: transaction) }
            expectError(.badDatabase) { try foreign.put(1, [1], in: transaction) }
            expectError(.badDatabase) { try foreign.count(in: transaction) }
            expectError(.badDatabase) { try foreign.firstEntry(in: transaction) }
        }
        try environment.read { transaction in
            let environment = environment
            Thread { _ = try? environment.numberedBytes("younger") }.join()
            let younger = try environment.numberedBytes("younger")
            expectError(.badDatabase) { try younger.get(1, in: transaction) }
        }
    }

    @Test("A stored value that does not decode is an error")
    func undecodable() throws {
        try environment.write { try database.put(1, [1, 2, 3], in: $0) }
        let numbers = try environment.database(named: "bytes", keys: BigEndianUInt64.self, values: BigEndianUInt64.self)
        expectError(.corrupted) { try environment.read { try numbers.get(1, in: $0) } }
    }
}
