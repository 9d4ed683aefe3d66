import LMDB
import Synchronization
import Testing

@Suite("Transactions")
struct TransactionTests {
    let directory: TemporaryDirectory
    let environment: Environment
    let database: NumberedBytes

    init() throws {
        directory = try TemporaryDirectory()
        environment = try Environment.open(at: directory.file(), configuration: .small())
        database = try environment.numberedBytes()
    }

    @Test("A throwing body undoes all of its transaction")
    func abort() throws {
        try environment.write { try database.put(1, [1], in: $0) }
        let before = environment.information.lastTransactionID
        #expect(throws: Interruption.self) {
            try environment.write { transaction in
                try database.put(1, [2], in: transaction)
                try database.put(2, [2], in: transaction)
                throw Interruption()
            }
        }
        try environment.read { transaction in
            expectEqual(try database.get(1, in: transaction), [1])
            expectEqual(try database.count(in: transaction), 1)
        }
        expectEqual(environment.information.lastTransactionID, before)
    }

    @Test("A read sees the moment it began, whatever is written meanwhile")
    func isolation() throws {
        try environment.write { try database.put(1, [1], in: $0) }
        try environment.read { transaction in
            let id = transaction.id
            try environment.write { try database.put(1, [2], in: $0) }
            expectEqual(try database.get(1, in: transaction), [1])
            expectEqual(transaction.id, id)
            // A read within a read is a snapshot of its own.
            try environment.read { inner in
                expectEqual(try database.get(1, in: inner), [2])
                expectEqual(inner.id, id + 1)
            }
            expectEqual(try database.get(1, in: transaction), [1])
        }
    }

    @Test("A read within a write sees what was there before it")
    func readWithinWrite() throws {
        try environment.write { transaction in
            try database.put(1, [1], in: transaction)
            expectEqual(try environment.read { try database.get(1, in: $0) }, nil)
            expectEqual(try database.get(1, in: transaction), [1])
        }
    }

    @Test("A write within a write is an error, not a hang")
    func nestedWrite() throws {
        try environment.write { transaction in
            expectError(.busy) { try environment.write { _ in Issue.record("the inner write ran") } }
            try database.put(1, [1], in: transaction)
        }
        expectEqual(try environment.read { try database.get(1, in: $0) }, [1])
        try environment.write { try database.put(2, [2], in: $0) }
    }

    @Test("Writers in many threads take turns and lose nothing")
    func concurrentWriters() throws {
        let (threadCount, writeCount) = (8, 25)
        let threads = (0..<threadCount).map { thread in
            Thread { [environment, database] in
                for index in 0..<writeCount {
                    do {
                        try environment.write { transaction in
                            let total = try database.get(0, in: transaction)?.count ?? 0
                            try database.put(0, [UInt8](repeating: 1, count: total + 1), in: transaction)
                            try database.put(UInt64(1 + thread * writeCount + index), [1], in: transaction)
                        }
                    } catch {
                        Issue.record(error)
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        try environment.read { transaction in
            expectEqual(try database.get(0, in: transaction)?.count, threadCount * writeCount)
            expectEqual(try database.count(in: transaction), threadCount * writeCount + 1)
        }
    }

    @Test("Read transactions are tied to no thread: many at once, in one thread and in many")
    func concurrentReaders() throws {
        try environment.write { transaction in
            for key in 0..<100 { try database.put(UInt64(key), [UInt8(key)], in: transaction) }
        }
        func nest(_ depth: Int) throws -> Int {
            try environment.read { transaction in
                let inner = depth > 1 ? try nest(depth - 1) : 0
                return inner + (try database.count(in: transaction))
            }
        }
        let sum = Atomic(0)
        let threads = (0..<8).map { _ in
            Thread { [environment, database] in
                for _ in 0..<50 {
                    let count = (try? environment.read { try database.count(in: $0) }) ?? 0
                    sum.add(count, ordering: .relaxed)
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(sum.load(ordering: .relaxed) == 8 * 50 * 100)
        expectEqual(try nest(20), 2000)
    }

    @Test("Ended readers are kept for reuse, but not without limit")
    func readerReuse() throws {
        for _ in 0..<100 { try environment.read { _ in } }
        #expect(environment.information.readersInUse == 1)
        func nest(_ depth: Int) throws -> Int {
            try environment.read { _ in depth > 1 ? try nest(depth - 1) : environment.information.readersInUse }
        }
        #expect(try nest(40) == 40)
        #expect(environment.information.readersInUse == 4)
    }

    @Test("Errors of the body pass through a read, and the reader is given back")
    func throwingRead() throws {
        for _ in 0..<10 {
            #expect(throws: Interruption.self) { try environment.read { _ in throw Interruption() } }
        }
        #expect(environment.information.readersInUse == 1)
    }
}
