import LMDB
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What happens between processes: a crowded reader table, readers that died, forks.
@Suite("Processes")
struct ProcessTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private static func configuration(maxReaders: Int) -> Environment.Configuration {
        .small { $0.maxReaders = maxReaders }
    }

    private static func nestReads(_ count: Int, in environment: Environment, _ body: () throws -> Void) throws {
        guard count > 0 else { return try body() }
        try environment.read { _ in try nestReads(count - 1, in: environment, body) }
    }

    @Test("A full reader table is an error that says what to do, and room is used as soon as there is some")
    func fullReaderTable() throws {
        let environment = try Environment.open(at: directory.file(), configuration: Self.configuration(maxReaders: 3))
        try Self.nestReads(3, in: environment) {
            #expect(environment.information.readersInUse == 3)
            do {
                let _: Void = try environment.read { _ in Issue.record("a fourth reader ran") }
            } catch let error as LMDBError {
                #expect(error.code == .readersFull)
                #expect(error.description.contains("maxReaders"))
            }
        }
        try Self.nestReads(3, in: environment) {}
    }

    @Test("A reader that finds the table full of other threads' readers waits for one to end")
    func waitForReader() throws {
        let environment = try Environment.open(at: directory.file(), configuration: Self.configuration(maxReaders: 3))
        let didRead = Atomic(false)
        var waiting: Thread?
        try Self.nestReads(3, in: environment) {
            waiting = Thread {
                do { try environment.read { _ in didRead.store(true, ordering: .relaxed) } } catch { Issue.record(error) }
            }
            usleep(20_000)
            expectTrue(!didRead.load(ordering: .relaxed))
        }
        waiting?.join()
        expectTrue(didRead.load(ordering: .relaxed))
    }

    @Test("Readers of processes that died are cleared on request")
    func staleReaders() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: Self.configuration(maxReaders: 10))
        await Self.dieReading(count: 4, path: directory.file())
        #expect(environment.information.readersInUse == 4)
        #expect(try environment.clearStaleReaders() == 4)
        #expect(environment.information.readersInUse == 0)
        #expect(try environment.clearStaleReaders() == 0)
    }

    @Test("A reader that finds the table full of the dead clears it by itself")
    func staleReadersFillTable() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: Self.configuration(maxReaders: 4))
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        try environment.read { _ in }
        await Self.dieReading(count: 3, path: directory.file())
        #expect(environment.information.readersInUse == 4)
        try Self.nestReads(4, in: environment) {
            #expect(environment.information.readersInUse == 4)
        }
        #expect(try environment.read { try database.get(1, in: $0) } == [1])
    }

    @Test("What a dead reader could see is used again before the map grows")
    func deadReaderHoldsPages() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: .small())
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [UInt8](repeating: 1, count: 100_000), in: $0) }
        let size = environment.information.mapSize
        await Self.dieReading(count: 1, path: directory.file())
        for round in 0..<50 {
            try environment.write { try database.put(1, [UInt8](repeating: UInt8(round), count: 100_000), in: $0) }
        }
        #expect(environment.information.mapSize == size)
    }

    private static func dieReading(count: Int, path: String) async {
        await #expect(processExitsWith: .exitCode(7)) { [count = count as Int, path = path as String] in
            let environment = try Environment.open(at: path, configuration: .small())
            try ProcessTests.nestReads(count, in: environment) { _exit(7) }
        }
    }

    // MARK: - Turns at the lock file

    @Test("Whoever opens a file waits for another that is just opening it")
    func openingTurn() throws {
        let lockFile = open(directory.file("data.mdb-lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(lockFile >= 0)
        expectEqual(flock(lockFile, LOCK_EX), 0)
        let other = Thread {
            usleep(50_000)
            close(lockFile)
        }
        let environment = try Environment.open(at: directory.file(), configuration: .small())
        other.join()
        try environment.read { _ in }
    }

    @Test("A process that does not go on in opening a file keeps others waiting for seconds, not for ever")
    func stoppedOpening() async throws {
        // What LMDB has in the middle of opening a file, and this library with it.
        let lockFile = open(directory.file("data.mdb-lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(lockFile >= 0)
        defer { close(lockFile) }
        expectEqual(flock(lockFile, LOCK_EX), 0)
        var range = flockRange(F_WRLCK, first: 0, count: 1)
        expectEqual(fcntl(lockFile, F_SETLK, &range), 0)
        await #expect(processExitsWith: .exitCode(7)) { [path = directory.file() as String, holder = Int(getpid()) as Int] in
            do {
                _ = try Environment.open(at: path, configuration: .small())
            } catch let error as LMDBError {
                expectEqual(error.code, .timedOut)
                expectTrue(error.description.contains("process \(holder) "))
                _exit(7)
            }
        }
    }

    @Test("A process that does not go on in beginning to read keeps others waiting for seconds, and what is open stays of use")
    func stoppedBeginning() async throws {
        await #expect(processExitsWith: .exitCode(7)) { [directory = directory.path as String] in
            let environment = try Environment.open(at: directory + "/data.mdb", configuration: .small())
            try environment.read { _ in }
            let lockFile = open(directory + "/data.mdb-lock", O_RDWR)
            expectEqual(flock(lockFile, LOCK_EX), 0)
            // Who has read once needs no turn to read again; a second read at the same time needs one.
            try environment.read { _ in }
            do {
                try ProcessTests.nestReads(2, in: environment) {}
                return
            } catch let error as LMDBError { expectEqual(error.code, .timedOut) }
            expectError(.timedOut) { try ProcessTests.nestReads(2, in: environment) {} }
            expectEqual(flock(lockFile, LOCK_UN), 0)
            try ProcessTests.nestReads(2, in: environment) {}
            _exit(7)
        }
    }

    @Test("A reader whose slot another process took away, for want of a lock, gets a new one")
    func stolenSlot() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: .small())
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        try environment.read { _ in }
        // Opening and closing the lock file drops this process's locks on it: others must take it for dead.
        _ = try readFile(directory.file("data.mdb-lock"))
        await #expect(processExitsWith: .exitCode(7)) { [path = directory.file() as String] in
            let environment = try Environment.open(at: path, configuration: .small())
            // This process set the table up anew, or has to clear it.
            _ = try environment.clearStaleReaders()
            try environment.read { _ in _exit(7) }
        }
        for _ in 0..<3 { #expect(try environment.read { try database.get(1, in: $0) } == [1]) }
    }

    @Test("A writer that dies in the middle of a write leaves nothing of it, and no lock")
    func deadWriter() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: .small())
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        await #expect(processExitsWith: .exitCode(7)) { [path = directory.file() as String] in
            let environment = try Environment.open(at: path, configuration: .small())
            let database = try environment.numberedBytes()
            try environment.write { transaction in
                try database.put(1, [2], in: transaction)
                try database.put(2, [UInt8](repeating: 2, count: 200_000), in: transaction)
                _exit(7)
            }
        }
        try environment.write { try database.put(3, [3], in: $0) }
        try environment.read { transaction in
            expectEqual(try database.get(1, in: transaction), [1])
            expectEqual(try database.get(2, in: transaction), nil)
            expectEqual(try database.get(3, in: transaction), [3])
        }
    }

    @Test("Two processes write to one file at once, and both are heard")
    func concurrentProcesses() async throws {
        let environment = try Environment.open(at: directory.file(), configuration: .small { $0.mapSize = 64 << 10 })
        let database = try environment.numberedBytes()
        let thread = Thread {
            for key in 0..<300 {
                do {
                    try environment.write { try database.put(UInt64(key), [UInt8](repeating: 1, count: 2500), in: $0) }
                } catch {
                    Issue.record(error)
                }
            }
        }
        await #expect(processExitsWith: .success) { [path = directory.file() as String] in
            let environment = try Environment.open(at: path, configuration: .small { $0.mapSize = 64 << 10 })
            let database = try environment.numberedBytes()
            for key in 1000..<1300 {
                try environment.write { try database.put(UInt64(key), [UInt8](repeating: 2, count: 2500), in: $0) }
                try environment.read { expectTrue(try database.contains(UInt64(key), in: $0)) }
            }
        }
        thread.join()
        #expect(try environment.read { try database.count(in: $0) } == 600)
    }

    #if os(Linux)
        @Test("After a fork the child is told to open the file again, can do so, and leaves the parent alone")
        func fork() async throws {
            await #expect(processExitsWith: .success) { [path = directory.file() as String] in
                let environment = try Environment.open(at: path, configuration: .small())
                let database = try environment.numberedBytes()
                try environment.write { try database.put(1, [1], in: $0) }
                try environment.read { _ in }

                let child = Glibc.fork()
                if child == 0 { _exit(ProcessTests.runForkedChild(environment, database, path)) }
                var status: Int32 = -1
                #expect(waitpid(child, &status, 0) == child)
                #expect(status == 0, "the child failed at step \(status >> 8)")

                #expect(environment.information.readersInUse == 1)
                try environment.write { try database.put(3, [3], in: $0) }
                try environment.read { transaction in
                    expectEqual(try database.get(2, in: transaction), [2])
                    expectEqual(try database.count(in: transaction), 3)
                }
            }
        }

        /// - Returns: 0, or the number of the step that failed: a forked child cannot record issues.
        private static func runForkedChild(_ inherited: Environment, _ database: NumberedBytes, _ path: String) -> Int32 {
            func isRefused(_ body: () throws -> Void) -> Bool {
                do { try body() } catch { return (error as? LMDBError)?.code == .usedAfterFork }
                return false
            }
            guard isRefused({ try inherited.read { _ in } }) else { return 1 }
            guard isRefused({ try inherited.write { _ in } }) else { return 2 }
            guard isRefused({ _ = try inherited.clearStaleReaders() }) else { return 3 }
            guard isRefused({ try inherited.copy(to: path + ".copy", compacting: false) }) else { return 4 }
            guard isRefused({ _ = try inherited.numberedBytes() }) else { return 5 }
            guard inherited.information.mapSize == 0 else { return 6 }
            do {
                let own = try Environment.open(at: path, configuration: .small())
                guard own !== inherited else { return 7 }
                let database = try own.numberedBytes()
                guard try own.read({ try database.get(1, in: $0) }) == [1] else { return 8 }
                try own.write { try database.put(2, [2], in: $0) }
            } catch {
                return 9
            }
            return 0
        }
    #endif
}
