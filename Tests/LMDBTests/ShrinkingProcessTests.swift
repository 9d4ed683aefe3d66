import Dispatch
import LMDB
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Shrinking under other processes: those that work on, those that sleep, and those that are killed at it.
@Suite("Shrinking and other processes")
struct ShrinkingProcessTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// Keys live this many steps: so there is always something to read and something to give back.
    private static let window = 60

    private static func value(_ step: Int) -> [UInt8] {
        var random = SeededGenerator(seed: UInt64(step))
        return random.bytes(Int.random(in: 1...6000, using: &random))
    }

    /// Stores one entry, removes one, and checks one of the others.
    private static func step(_ number: Int, _ environment: Environment, _ database: NumberedBytes) throws {
        let bytes = value(number)
        try environment.write { transaction in
            try database.put(UInt64(number), bytes, in: transaction)
            if number >= window { _ = try database.delete(UInt64(number - window), in: transaction) }
        }
        let first = max(0, number - window + 1)
        try environment.read { try check(first + number * 7 % (number - first + 1), database, in: $0) }
    }

    private static func check(_ number: Int, _ database: NumberedBytes, in transaction: borrowing ReadTransaction) throws {
        guard try database.get(UInt64(number), in: transaction) == value(number) else { throw Interruption() }
    }

    /// Expects exactly what the steps up to `last` leave.
    private func expectContent(through last: Int, _ environment: Environment, _ database: NumberedBytes) throws {
        try environment.read { transaction in
            expectEqual(try database.count(in: transaction), min(last + 1, Self.window))
            for number in max(0, last - Self.window + 1)...last { try Self.check(number, database, in: transaction) }
        }
    }

    private static func note(_ path: String, _ number: Int = 0) throws {
        try overwrite(path, at: 0, with: Array(String(number).utf8))
    }

    /// The write lock is not handed out in turn: one that did nothing but shrink might leave nobody else any.
    private static func giveTurn() { usleep(500) }

    /// What another process has noted. One that failed never does, so after a minute there is no more hope.
    private static func wait(for path: String) throws -> Int {
        for _ in 0..<60_000 {
            if let bytes = try? readFile(path), let number = Int(String(decoding: bytes, as: UTF8.self)) { return number }
            usleep(1000)
        }
        throw Interruption()
    }

    private func thread(_ body: @escaping @Sendable () throws -> Void) -> Thread {
        Thread {
            do { try body() } catch { Issue.record(error) }
        }
    }

    @Test("A process that writes and reads all the time loses nothing while another shrinks the file 50 times")
    func busyProcess() async throws {
        let environment = try Environment.shrinkable(in: directory.path) { $0.mapSize = 64 << 10 }
        let own = try environment.numberedBytes("own")
        // The test itself waits for the child, so what goes on beside that has a thread of its own.
        let shrinker = thread { [path = directory.path] in
            // The child would go on forever if this failed.
            defer { try? Self.note(path + "/stop") }
            _ = try Self.wait(for: path + "/begun")
            var before = environment.filePath
            for round in 0..<50 {
                try Self.step(round, environment, own)
                let sizes = try environment.shrink()
                #expect(sizes.after <= sizes.before)
                #expect(environment.filePath != before)
                before = environment.filePath
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            let environment = try Environment.shrinkable(in: path) { $0.mapSize = 64 << 10 }
            let database = try environment.numberedBytes("child")
            var number = 0
            while number < 10 || fileSize(path + "/stop") < 0 {
                try ShrinkingProcessTests.step(number, environment, database)
                number += 1
                if number == 10 { try ShrinkingProcessTests.note(path + "/begun", number) }
            }
            try ShrinkingProcessTests.note(path + "/last", number - 1)
        }
        shrinker.join()
        let last = try Self.wait(for: directory.file("last"))
        try expectContent(through: 49, environment, own)
        try expectContent(through: last, environment, try environment.numberedBytes("child"))
        #expect(fileNames(in: directory.path) == ["begun", "data.51.mdb", "data.51.mdb-lock", "last", "stop"])
    }

    @Test("Processes that shrink the same file at once take turns, and lose nothing")
    func twoShrinkers() async throws {
        let environment = try Environment.shrinkable(in: directory.path)
        let own = try environment.numberedBytes("own")
        let shrinker = thread {
            for number in 0..<40 {
                try Self.step(number, environment, own)
                try environment.shrink()
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            let environment = try Environment.shrinkable(in: path)
            let database = try environment.numberedBytes("child")
            for number in 0..<40 {
                try ShrinkingProcessTests.step(number, environment, database)
                try environment.shrink()
            }
        }
        shrinker.join()
        try expectContent(through: 39, environment, own)
        try expectContent(through: 39, environment, try environment.numberedBytes("child"))
        #expect(fileNames(in: directory.path) == ["data.81.mdb", "data.81.mdb-lock"])
    }

    @Test(
        "A process that sleeps through two shrinkings reads and writes the newest file when it wakes",
        arguments: ["read", "write", "database", "readOnly"])
    func sleeper(first: String) async throws {
        let environment = try Environment.shrinkable(in: directory.path)
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        let shrinker = thread { [path = directory.path] in
            _ = try Self.wait(for: path + "/asleep")
            try environment.shrink()
            try environment.shrink()
            try environment.write { try database.put(1, [2], in: $0) }
            let late = try environment.numberedBytes("late")
            try environment.write { try late.put(1, [3], in: $0) }
            try Self.note(path + "/awake")
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String, first = first as String] in
            let environment = try Environment.shrinkable(in: path) { $0.isReadOnly = first == "readOnly" }
            let database = try environment.database(named: "bytes", keys: BigEndianUInt64.self, values: RawBytes.self)
            try environment.read { expectEqual(try database.get(1, in: $0), [1]) }
            try ShrinkingProcessTests.note(path + "/asleep")
            _ = try ShrinkingProcessTests.wait(for: path + "/awake")
            switch first {
            case "write": try environment.write { expectEqual(try database.get(1, in: $0), [2]) }
            case "database":
                let late = try environment.numberedBytes("late")
                try environment.read { expectEqual(try late.get(1, in: $0), [3]) }
            default: try environment.read { expectEqual(try database.get(1, in: $0), [2]) }
            }
            if first != "readOnly" { try environment.write { try database.put(2, [4], in: $0) } }
        }
        shrinker.join()
        #expect(try environment.read { try database.get(2, in: $0) } == (first == "readOnly" ? nil : [4]))
    }

    @Test("A write that waited for its turn while the file was shrunk goes to the successor")
    func waitingWriter() async throws {
        let environment = try Environment.shrinkable(in: directory.path)
        let database = try environment.numberedBytes()
        let isOver = Flag()
        let shrinker = thread {
            var last: UInt8 = 0
            while !isOver.isSet {
                try environment.shrink()
                Self.giveTurn()
                let found = try environment.read { try database.get(1, in: $0)?.first ?? 0 }
                #expect(found >= last)
                last = found
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            let environment = try Environment.shrinkable(in: path)
            let database = try environment.numberedBytes()
            for number in 1...200 {
                try environment.write { try database.put(1, [UInt8(number)], in: $0) }
                try environment.read { expectEqual(try database.get(1, in: $0), [UInt8(number)]) }
            }
        }
        isOver.set()
        shrinker.join()
        #expect(try environment.read { try database.get(1, in: $0) } == [200])
    }

    @Test("Whenever a process is killed while it shrinks, the writes of another are all there", .timeLimit(.minutes(20)))
    func kills() async throws {
        let environment = try Environment.shrinkable(in: directory.path)
        let database = try environment.numberedBytes()
        let ballast = try environment.numberedBytes("ballast")
        try environment.write { transaction in
            for key in 0..<200 { try ballast.put(UInt64(key), Self.value(key), in: transaction) }
        }
        var number = 0
        var leftovers = 0
        for round in 0..<30 {
            let isOver = Flag()
            let first = number
            let writer = thread {
                var number = first
                defer { isOver.note(number) }
                while number < first + 3 || !isOver.isSet {
                    try Self.step(number, environment, database)
                    number += 1
                }
            }
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = directory.path as String, round = round as Int] in
                try ShrinkingProcessTests.shrinkUntilKilled(path, seed: UInt64(round))
            }
            isOver.set()
            writer.join()
            number = isOver.number
            if fileNames(in: directory.path).count != 2 { leftovers += 1 }
            try expectContent(through: number - 1, environment, database)
        }
        // Without a kill that left something behind the test would show little.
        #expect(leftovers > 0)
        try environment.shrink()
        #expect(fileNames(in: directory.path).count == 2)
        try environment.read { transaction in
            for key in 0..<200 { expectTrue(try ballast.get(UInt64(key), in: transaction) == Self.value(key)) }
        }
    }

    @Test("A reader with a map just large enough follows a file that another process shrinks and makes grow all the time")
    func growingSuccessors() async throws {
        let environment = try Environment.shrinkable(in: directory.path) { $0.isScratch = true }
        let database = try environment.numberedBytes()
        try environment.write { try database.put(0, [1], in: $0) }
        let isOver = Flag()
        let writer = thread {
            while !isOver.isSet {
                try environment.shrink()
                for key in 1...20 { try environment.write { try database.put(UInt64(key), Self.large, in: $0) } }
                try environment.write { transaction in
                    for key in 1...20 { _ = try database.delete(UInt64(key), in: transaction) }
                }
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            let environment = try Environment.shrinkable(in: path) {
                $0.mapSize = 4096
                $0.growsMap = false
                $0.isReadOnly = true
            }
            let database = try environment.database(named: "bytes", keys: BigEndianUInt64.self, values: RawBytes.self)
            var files: Set<String> = []
            var random = SeededGenerator(seed: 1)
            while files.count < 300 {
                usleep(UInt32.random(in: 0..<4000, using: &random))
                files.insert(environment.filePath)
                try environment.read { expectEqual(try database.get(0, in: $0), [1]) }
            }
        }
        isOver.set()
        writer.join()
    }

    private static let large = [UInt8](repeating: 7, count: 20_000)

    private static func shrinkUntilKilled(_ path: String, seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let environment = try Environment.shrinkable(in: path)
        _ = try environment.numberedBytes()
        let delay = UInt32.random(in: 0..<60_000, using: &random)
        DispatchQueue.global().async {
            usleep(delay)
            kill(getpid(), SIGKILL)
        }
        while true { try environment.shrink() }
    }

    /// Tells a thread to end, and what it has done.
    private final class Flag: @unchecked Sendable {
        private let lock = DispatchSemaphore(value: 1)
        private var state = (isSet: false, number: 0)

        var isSet: Bool { locked { $0.isSet } }
        var number: Int { locked { $0.number } }

        func set() { locked { $0.isSet = true } }

        func note(_ number: Int) { locked { $0.number = number } }

        private func locked<R>(_ body: (inout (isSet: Bool, number: Int)) -> R) -> R {
            lock.wait()
            defer { lock.signal() }
            return body(&state)
        }
    }

    @Test("Processes that open the file while another shrinks it find what was stored, and put no empty file in its place")
    func opening() async throws {
        let environment = try Environment.shrinkable(in: directory.path)
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        let isOver = Flag()
        let shrinker = thread {
            while !isOver.isSet {
                try environment.shrink()
                Self.giveTurn()
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            for round in 0..<300 {
                let environment = try Environment.shrinkable(in: path) { $0.isReadOnly = round % 3 == 0 }
                let database = try environment.database(named: "bytes", keys: BigEndianUInt64.self, values: RawBytes.self)
                if round % 3 == 1 { try environment.write { try database.put(2, [UInt8(truncatingIfNeeded: round)], in: $0) } }
                try environment.read { expectEqual(try database.get(1, in: $0), [1]) }
            }
        }
        isOver.set()
        shrinker.join()
        #expect(try environment.read { try database.get(2, in: $0) } == [UInt8(truncatingIfNeeded: 298)])
        try environment.shrink()
        #expect(fileNames(in: directory.path).count == 2)
    }

    #if os(Linux)
        @Test("After a fork neither reading nor shrinking is possible, and the child can open the newest file itself")
        func fork() async throws {
            await #expect(processExitsWith: .success) { [path = directory.path as String] in
                let environment = try Environment.shrinkable(in: path)
                let database = try environment.numberedBytes()
                try environment.write { try database.put(1, [1], in: $0) }
                try environment.shrink()
                let child = Glibc.fork()
                if child == 0 { _exit(ShrinkingProcessTests.runForkedChild(environment, path)) }
                var status: Int32 = -1
                #expect(waitpid(child, &status, 0) == child)
                #expect(status == 0, "the child failed at step \(status >> 8)")
                try environment.read { expectEqual(try database.get(1, in: $0), [2]) }
                try environment.write { try database.put(1, [3], in: $0) }
                try environment.shrink()
            }
        }

        private static func runForkedChild(_ inherited: Environment, _ path: String) -> Int32 {
            func isRefused(_ body: () throws -> Void) -> Bool {
                do { try body() } catch { return (error as? LMDBError)?.code == .usedAfterFork }
                return false
            }
            guard isRefused({ try inherited.read { _ in } }) else { return 1 }
            guard isRefused({ try inherited.shrink() }) else { return 2 }
            guard isRefused({ _ = try inherited.freeBytes() }) else { return 3 }
            guard inherited.filePath == inherited.path else { return 4 }
            do {
                let own = try Environment.shrinkable(in: path)
                guard own !== inherited else { return 5 }
                let database = try own.numberedBytes()
                guard try own.read({ try database.get(1, in: $0) }) == [1] else { return 6 }
                try own.write { try database.put(1, [2], in: $0) }
                guard try own.freeBytes() > 0 else { return 7 }
            } catch {
                return 8
            }
            return 0
        }
    #endif
}
