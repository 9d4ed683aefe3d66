import LMDB
import Synchronization
import Testing

@Suite("Memory map")
struct MapGrowthTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func open(_ change: (inout Environment.Configuration) -> Void = { _ in }) throws -> (Environment, NumberedBytes) {
        let configuration = Environment.Configuration.small { configuration in
            configuration.mapSize = 64 << 10
            change(&configuration)
        }
        let environment = try Environment.open(at: directory.file(), configuration: configuration)
        return (environment, try environment.numberedBytes())
    }

    private static func value(_ key: Int) -> [UInt8] { [UInt8](repeating: UInt8(key & 0xff), count: 3000) }

    @Test("A write that fills the map runs again in a larger one, as often as it takes")
    func growth() throws {
        let (environment, database) = try open()
        var runs = 0
        try environment.write { transaction in
            runs += 1
            expectEqual(try database.count(in: transaction), 0)
            for key in 0..<500 { try database.put(UInt64(key), Self.value(key), in: transaction) }
        }
        #expect(runs > 3)
        #expect(environment.information.mapSize >= 500 * 4096)
        try environment.read { transaction in
            expectEqual(try database.count(in: transaction), 500)
            for key in 0..<500 { expectEqual(try database.get(UInt64(key), in: transaction), Self.value(key)) }
        }
    }

    @Test("A full map shows, even where the body swallows the error or throws another")
    func swallowedError() throws {
        let (environment, database) = try open()
        try environment.write { transaction in
            for key in 0..<100 {
                do { try database.put(UInt64(key), Self.value(key), in: transaction) } catch { break }
            }
        }
        #expect(try environment.read { try database.count(in: $0) } == 100)
        try environment.write { transaction in
            for key in 100..<300 {
                do { try database.put(UInt64(key), Self.value(key), in: transaction) } catch { throw Interruption() }
            }
        }
        #expect(try environment.read { try database.count(in: $0) } == 300)
    }

    @Test("Creating a database can be what fills the map")
    func growthWhileOpening() throws {
        let (environment, database) = try open { $0.mapSize = 8 << 10 }
        let others = try (0..<10).map { try environment.numberedBytes("database \($0)" + String(repeating: "x", count: 400)) }
        try environment.write { transaction in
            for other in others { try other.put(1, Self.value(1), in: transaction) }
            try database.put(1, [1], in: transaction)
        }
        for other in others { #expect(try environment.read { try other.get(1, in: $0) } == Self.value(1)) }
    }

    @Test("Without growth a full map is an error, and everything stored before stays and can be made room in")
    func noGrowth() throws {
        let (environment, database) = try open {
            $0.growsMap = false
            $0.mapSize = 256 << 10
        }
        var stored = 0
        expectError(.mapFull) {
            while true {
                try environment.write { try database.put(UInt64(stored), Self.value(stored), in: $0) }
                stored += 1
            }
        }
        #expect(stored > 10)
        #expect(environment.information.mapSize == 256 << 10)
        #expect(try environment.read { try database.count(in: $0) } == stored)
        // A page of room is left for deleting: LMDB copies what it changes.
        try environment.write { expectTrue(try database.delete(0, in: $0)) }
        try environment.write { expectTrue(try database.delete(1, in: $0)) }
        try environment.write { _ in }
        try environment.write { try database.put(0, [0], in: $0) }
        #expect(try environment.read { try database.count(in: $0) } == stored - 1)
    }

    @Test("Growth ends at maxMapSize")
    func growthLimit() throws {
        let (environment, database) = try open { $0.maxMapSize = 200 << 10 }
        expectError(.mapFull) {
            try environment.write { transaction in
                for key in 0..<100 { try database.put(UInt64(key), Self.value(key), in: transaction) }
            }
        }
        #expect(environment.information.mapSize == 200 << 10)
        #expect(try environment.read { try database.count(in: $0) } == 0)
        try environment.write { try database.put(1, [1], in: $0) }
    }

    @Test("The map grows while other threads read, and none of them sees anything wrong")
    func growthUnderReaders() throws {
        let (environment, database) = try open()
        let isDone = Atomic(false)
        let hasRead = Signal()
        let threads = (0..<4).map { _ in
            Thread {
                while !isDone.load(ordering: .relaxed) {
                    do {
                        try environment.read { transaction in
                            try database.forEach(in: .all, in: transaction) { key, value in
                                if value != Self.value(Int(key)) { Issue.record("wrong value of \(key)") }
                                return .continue
                            }
                            // A read within a read must get in while the writer waits for the outer one to end.
                            try environment.read { inner in expectTrue(try database.count(in: inner) >= 0) }
                        }
                        _ = environment.information
                        hasRead.send()
                    } catch {
                        Issue.record(error)
                        return
                    }
                }
            }
        }
        for key in 0..<1000 { try environment.write { try database.put(UInt64(key), Self.value(key), in: $0) } }
        hasRead.wait()
        isDone.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        #expect(environment.information.mapSize >= 1000 * 4096)
        #expect(try environment.read { try database.count(in: $0) } == 1000)
    }

    @Test("A write that must grow the map inside a read of the same thread is an error, not a hang")
    func growthInsideRead() throws {
        let (environment, database) = try open()
        try environment.read { _ in
            try environment.write { try database.put(1, [1], in: $0) }
            expectError(.busy) {
                try environment.write { transaction in
                    for key in 0..<100 { try database.put(UInt64(key), Self.value(key), in: transaction) }
                }
            }
        }
        try environment.write { transaction in
            for key in 0..<100 { try database.put(UInt64(key), Self.value(key), in: transaction) }
        }
        #expect(try environment.read { try database.count(in: $0) } == 100)
    }

    @Test("Readers and writers follow another process that makes the file grow", arguments: ["read", "write", "open"])
    func growthByAnotherProcess(next: String) async throws {
        let (environment, database) = try open()
        try environment.write { try database.put(0, Self.value(0), in: $0) }
        await #expect(processExitsWith: .success) { [path = directory.file() as String] in
            try MapGrowthTests.addEntries(1...200, path)
        }
        #expect(environment.information.mapSize < environment.information.usedBytes)
        switch next {
        case "read": try environment.read { expectEqual(try database.count(in: $0), 201) }
        case "write": try environment.write { try database.put(1, Self.value(1), in: $0) }
        default: _ = try environment.numberedBytes("another")
        }
        #expect(environment.information.mapSize >= environment.information.usedBytes)
        try environment.read { transaction in
            for key in 0...200 { expectEqual(try database.get(UInt64(key), in: transaction), Self.value(key)) }
        }
    }

    private static func addEntries(_ keys: ClosedRange<Int>, _ path: String) throws {
        let environment = try Environment.open(at: path, configuration: .small())
        let database = try environment.numberedBytes()
        try environment.write { transaction in
            for key in keys { try database.put(UInt64(key), value(key), in: transaction) }
        }
    }

    @Test("A thread that is in a read when another process makes the file grow goes on, and cannot begin a newer read")
    func growthByAnotherProcessUnderRead() async throws {
        let (environment, database) = try open()
        try environment.write { try database.put(0, [0], in: $0) }
        // The child needs to run while the read lasts, so the read has a thread of its own and the test waits outside.
        let (hasBegun, mayEnd) = (Signal(), Signal())
        let thread = Thread {
            do {
                try environment.read { transaction in
                    hasBegun.send()
                    mayEnd.wait()
                    expectEqual(try database.get(0, in: transaction), [0])
                    expectEqual(try database.count(in: transaction), 1)
                    expectError(.mapResized) { try environment.read { _ in } }
                }
                try environment.read { expectEqual(try database.count(in: $0), 201) }
            } catch {
                Issue.record(error)
            }
        }
        hasBegun.wait()
        await #expect(processExitsWith: .success) { [path = directory.file() as String] in
            try MapGrowthTests.addEntries(1...200, path)
        }
        mayEnd.send()
        thread.join()
    }

    #if os(Linux)
        @Test("Where there is no address space for a larger map, the write fails and the environment goes on")
        func noAddressSpace() async throws {
            await #expect(processExitsWith: .success) { [path = directory.file() as String] in
                let environment = try Environment.open(at: path, configuration: .small { $0.maxMapSize = 1 << 40 })
                let database = try environment.numberedBytes()
                try environment.write { try database.put(1, [1], in: $0) }
                try limitAddressSpace(bytesMore: 7 << 29)
                // The map doubles up to 2 GiB; for 4 GiB there is no room.
                expectError(.outOfMemory) {
                    try environment.write { transaction in
                        try database.reserve(2, byteCount: 3 << 30, in: transaction) { _ in Issue.record("there was room") }
                    }
                }
                #expect(environment.information.mapSize == 2 << 30)
                try environment.write { try database.put(2, [2], in: $0) }
                #expect(try environment.read { try database.get(1, in: $0) } == [1])
                #expect(try environment.read { try database.get(2, in: $0) } == [2])
            }
        }
    #endif
}
