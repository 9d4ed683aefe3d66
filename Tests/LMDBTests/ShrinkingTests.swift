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

extension Environment {
    /// An environment that may be shrunk. Its files are `data.mdb`, `data.2.mdb`, …
    static func shrinkable(
        in directory: String, _ change: (inout Configuration) -> Void = { _ in }
    ) throws -> Environment {
        try open(
            at: "\(directory)/data.mdb",
            configuration: .small {
                $0.allowsSuccessors = true
                change(&$0)
            })
    }
}

/// Shrinking within one process: content, handles, names, and what an interrupted shrinking leaves behind.
@Suite("Shrinking")
struct ShrinkingTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func open(_ change: (inout Environment.Configuration) -> Void = { _ in }) throws -> Environment {
        try .shrinkable(in: directory.path, change)
    }

    private static func value(_ key: Int, _ round: Int = 0) -> [UInt8] {
        [UInt8](repeating: UInt8(truncatingIfNeeded: key &* 31 &+ round), count: 500 + key * 7 % 6000)
    }

    /// Stores entries 0..<1000 in a few writes and removes those from `kept` on.
    private func fill(_ environment: Environment, _ database: NumberedBytes, keeping kept: Int = 100) throws {
        for start in stride(from: 0, to: 1000, by: 100) {
            try environment.write { transaction in
                for key in start..<start + 100 { try database.put(UInt64(key), Self.value(key), in: transaction) }
            }
        }
        try environment.write { try database.delete(in: .from(UInt64(kept)), in: $0) }
    }

    private func expectContent(
        _ environment: Environment, _ database: NumberedBytes, count: Int = 100, round: Int = 0,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try environment.read { transaction in
            expectEqual(try database.count(in: transaction), count, sourceLocation: sourceLocation)
            for key in 0..<count {
                expectEqual(
                    try database.get(UInt64(key), in: transaction), Self.value(key, round), sourceLocation: sourceLocation)
            }
        }
    }

    // MARK: - Content and space

    @Test("A shrunk file has the same content in every database, and no free pages")
    func content() throws {
        var random = SeededGenerator(seed: 1)
        let environment = try open()
        let names: [String?] = ["a", "b", "c", nil]
        let databases = try names.map { try environment.numberedBytes($0) }
        var expected = databases.map { _ in [UInt64: [UInt8]]() }
        for _ in 0..<5 {
            for _ in 0..<20 {
                // the unnamed database holds the others' names, and may hold entries beside them
                let index = Int.random(in: 0..<4, using: &random)
                let changes = (0..<20).map { step in
                    (
                        key: UInt64.random(in: 0..<200, using: &random),
                        bytes: step % 2 == 0 ? random.bytes(Int.random(in: 0...5000, using: &random)) : nil
                    )
                }
                for (key, bytes) in changes { expected[index][key] = bytes }
                try environment.write { transaction in
                    for (key, bytes) in changes {
                        if let bytes {
                            try databases[index].put(key, bytes, in: transaction)
                        } else {
                            _ = try databases[index].delete(key, in: transaction)
                        }
                    }
                }
            }
            let free = try environment.freeBytes()
            let used = environment.information.usedBytes
            #expect(free > 0)
            let sizes = try environment.shrink()
            #expect(sizes.after == used - free)
            #expect(sizes.after == fileSize(environment.filePath))
            #expect(sizes.after < sizes.before)
            #expect(try environment.freeBytes() == 0)
            for (index, database) in databases.enumerated() {
                try environment.read { transaction in
                    for (key, bytes) in expected[index] {
                        expectTrue(try database.get(key, in: transaction) == bytes)
                    }
                    let others = index == 3 ? 3 : 0
                    expectEqual(try database.count(in: transaction), expected[index].count + others)
                }
            }
        }
    }

    @Test("The former file is gone, the next one is named by its number, and opening finds it")
    func names() throws {
        for round in 1...4 {
            let environment = try open()
            let database = try environment.numberedBytes()
            try fill(environment, database)
            #expect(environment.path.hasSuffix("/data.mdb"))
            #expect(environment.filePath.hasSuffix(round == 1 ? "/data.mdb" : "/data.\(round).mdb"))
            try environment.shrink()
            #expect(fileNames(in: directory.path) == ["data.\(round + 1).mdb", "data.\(round + 1).mdb-lock"])
            #expect(environment.path.hasSuffix("/data.mdb"))
            #expect(environment.filePath.hasSuffix("/data.\(round + 1).mdb"))
            // the same environment, by whatever path to the folder
            #expect(symlink(directory.path, directory.path + "/link") == 0)
            #expect(try Environment.shrinkable(in: directory.path + "/link") === environment)
            #expect(unlink(directory.path + "/link") == 0)
            try expectContent(environment, database)
        }
    }

    @Test("Environment and databases opened before stay good, through reads, writes, growth and later opening")
    func handles() throws {
        let environment = try open { $0.mapSize = 64 << 10 }
        let first = try environment.numberedBytes("first")
        let second = try environment.numberedBytes("second")
        try fill(environment, first)
        try fill(environment, second, keeping: 50)
        for round in 0..<5 {
            try environment.shrink()
            let late = try environment.numberedBytes("late \(round)")
            try environment.write { try late.put(1, [UInt8(round)], in: $0) }
            try expectContent(environment, first)
            try expectContent(environment, second, count: 50)
            try fill(environment, second, keeping: 50)
            #expect(try environment.read { try late.get(1, in: $0) } == [UInt8(round)])
            expectError(.notFound) {
                try environment.database(named: "none", keys: BigEndianUInt64.self, values: RawBytes.self)
            }
        }
        #expect(try environment.numberedBytes("late 0").environment === environment)
    }

    @Test("An empty environment can be shrunk, and databases be created afterwards")
    func empty() throws {
        let environment = try open()
        #expect(try environment.freeBytes() == 0)
        try environment.shrink()
        try environment.shrink()
        let database = try environment.numberedBytes()
        try environment.write { try database.put(1, [1], in: $0) }
        #expect(try environment.read { try database.get(1, in: $0) } == [1])
    }

    @Test("A map that may not grow has the configured size in the successor, too")
    func fixedMap() throws {
        let environment = try open {
            $0.growsMap = false; $0.mapSize = 1 << 20
        }
        let database = try environment.numberedBytes()
        try environment.write { try database.put(0, [0], in: $0) }
        try environment.shrink()
        #expect(environment.information.mapSize == 1 << 20)
        expectError(.mapFull) {
            try environment.write { transaction in
                for key in 0..<1000 { try database.put(UInt64(key), Self.value(key), in: transaction) }
            }
        }
        #expect(try environment.read { try database.count(in: $0) } == 1)
    }

    // MARK: - Refusals

    @Test("Shrinking inside a transaction, read-only or without successors is refused, and nothing happens")
    func refusals() throws {
        do {
            let environment = try open()
            let database = try environment.numberedBytes()
            try environment.write { transaction in
                expectError(.busy) { try environment.shrink() }
                try database.put(1, [1], in: transaction)
            }
            try environment.read { _ in expectError(.busy) { try environment.shrink() } }
            #expect(try environment.read { try database.get(1, in: $0) } == [1])
            expectError(.busy) { try Environment.open(at: directory.file(), configuration: .small()) }
        }
        do {
            let environment = try open { $0.isReadOnly = true }
            expectError(.permissionDenied) { try environment.shrink() }
        }
        let environment = try Environment.open(at: directory.file(), configuration: .small())
        expectError(.invalidArgument) { try environment.shrink() }
        expectError(.busy) { try open() }
        #expect(fileNames(in: directory.path) == ["data.mdb", "data.mdb-lock"])
    }

    @Test("A file that is a link cannot have successors, nor can what is no file")
    func links() throws {
        _ = try Environment.open(at: directory.file("real.mdb"), configuration: .small())
        #expect(symlink(directory.file("real.mdb"), directory.file("data.mdb")) == 0)
        expectError(.invalidArgument) { try open() }
        #expect(unlink(directory.file("data.mdb")) == 0)
        #expect(mkdir(directory.file("data.mdb"), 0o700) == 0)
        expectError(.isDirectory) { try open() }
        #expect(rmdir(directory.file("data.mdb")) == 0)
        expectError(.noSuchFile) { try open { $0.isReadOnly = true } }
        expectError(.noSuchFile) { try Environment.shrinkable(in: directory.file("missing")) }
        let configuration = Environment.Configuration.small { $0.allowsSuccessors = true }
        for path in ["", "/", directory.path + "/", "..", "a\u{0}b"] {
            expectError(.invalidArgument) { try Environment.open(at: path, configuration: configuration) }
        }
        #expect(fileNames(in: directory.path) == ["real.mdb", "real.mdb-lock"])
    }

    @Test("A file removed under its environment, or replaced by another, is an error and not followed")
    func removed() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try fill(environment, database)
        try environment.shrink()
        #expect(unlink(directory.file("data.2.mdb")) == 0)
        expectError(.noSuchFile) { try environment.read { _ in } }
        expectError(.noSuchFile) { try environment.write { _ in } }
        try overwrite(directory.file("data.2.mdb"), at: 0, with: [1, 2, 3])
        expectError(.noSuchFile) { try environment.read { _ in } }
        #expect(environment.information.mapSize == 0)
    }

    // MARK: - Reads that go on

    @Test("A read goes on in the former file, with nested reads and writes of newer content; it holds up nobody")
    func longRead() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try fill(environment, database)
        let (hasBegun, mayEnd) = (Signal(), Signal())
        let thread = Thread {
            do {
                try environment.read { transaction in
                    hasBegun.send()
                    mayEnd.wait()
                    expectEqual(try database.count(in: transaction), 100)
                    for key in 0..<100 { expectEqual(try database.get(UInt64(key), in: transaction), Self.value(key)) }
                    try environment.read { expectEqual(try database.count(in: $0), 1) }
                    try environment.write { try database.put(2000, [3], in: $0) }
                    expectEqual(try database.count(in: transaction), 100)
                    expectEqual(try database.get(2000, in: transaction), nil)
                }
                try environment.read { expectEqual(try database.count(in: $0), 2) }
            } catch {
                Issue.record(error)
            }
        }
        hasBegun.wait()
        for _ in 0..<3 { try environment.shrink() }
        try environment.write { transaction in
            try database.clear(in: transaction)
            try database.put(1000, [2], in: transaction)
        }
        #expect(try environment.read { try database.get(1000, in: $0) } == [2])
        // a database of which the file that is read in knows nothing
        let late = try environment.numberedBytes("late")
        try environment.write { try late.put(1, [1], in: $0) }
        mayEnd.send()
        thread.join()
        #expect(try environment.read { try late.get(1, in: $0) } == [1])
    }

    @Test("A database opened in the successor is unknown to a read of the former file, and that is said")
    func lateDatabase() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try environment.read { transaction in
            let thread = Thread {
                do {
                    try environment.shrink()
                    let late = try environment.numberedBytes("late")
                    try environment.write { try late.put(1, [1], in: $0) }
                } catch {
                    Issue.record(error)
                }
            }
            thread.join()
            expectEqual(try database.count(in: transaction), 0)
            let late = try environment.numberedBytes("late")
            expectError(.badDatabase) { try late.get(1, in: transaction) }
        }
    }

    @Test("The former file closes with its last read", .enabled(if: fileSize("/proc/self/fd") >= 0, "needs Linux's /proc"))
    func closing() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try fill(environment, database)
        let (hasBegun, mayEnd) = (Signal(), Signal())
        let former = directory.file()
        let thread = Thread {
            do {
                try environment.read { _ in
                    hasBegun.send()
                    mayEnd.wait()
                }
            } catch {
                Issue.record(error)
            }
        }
        hasBegun.wait()
        #expect(isOpen(former))
        try environment.shrink()
        #expect(isOpen(former + " (deleted)"))
        mayEnd.send()
        thread.join()
        #expect(!isOpen(former + " (deleted)"))
        #expect(isOpen(environment.filePath))
    }

    /// Whether this process has a descriptor of the file.
    private func isOpen(_ path: String) -> Bool {
        fileNames(in: "/proc/self/fd").contains { name in
            var target = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/self/fd/\(name)", &target, target.count)
            return count > 0 && target[..<count].elementsEqual(path.utf8CString.dropLast())
        }
    }

    @Test("Threads read and write while others shrink; every one sees all that was acknowledged before")
    func threads() throws {
        let environment = try open { $0.mapSize = 128 << 10 }
        let databases = try (0..<3).map { try environment.numberedBytes("\($0)") }
        let acknowledged = (0..<3).map { _ in Counter() }
        let isDone = Atomic(false)
        var threads = (0..<3).map { index in
            Thread {
                do {
                    for round in 0..<400 {
                        let key = UInt64(round % 50)
                        try environment.write {
                            try databases[index].put(key, Self.value(round % 50, round), in: $0)
                            try databases[index].put(1000, [UInt8](repeating: 0, count: round), in: $0)
                        }
                        acknowledged[index].set(round)
                    }
                } catch {
                    Issue.record(error)
                }
            }
        }
        threads += (0..<2).map { _ in
            Thread {
                do {
                    while !isDone.load(ordering: .relaxed) {
                        for index in 0..<3 {
                            let before = acknowledged[index].value
                            let round = try environment.read { try databases[index].get(1000, in: $0)?.count ?? -1 }
                            if round < before { Issue.record("read \(round) after \(before) was acknowledged") }
                        }
                    }
                } catch {
                    Issue.record(error)
                }
            }
        }
        for _ in 0..<30 { try environment.shrink() }
        for thread in threads[..<3] { thread.join() }
        isDone.store(true, ordering: .relaxed)
        for thread in threads[3...] { thread.join() }
        try environment.read { transaction in
            for database in databases {
                for key in 0..<50 {
                    expectEqual(try database.get(UInt64(key), in: transaction), Self.value(key, 350 + key))
                }
            }
        }
        #expect(fileNames(in: directory.path).count == 2)
    }

    private final class Counter: Sendable {
        private let number = Atomic(-1)

        var value: Int { number.load(ordering: .sequentiallyConsistent) }

        func set(_ value: Int) { number.store(value, ordering: .sequentiallyConsistent) }
    }

    // MARK: - What a crash leaves

    @Test("Between the successor's appearance and the former file's removal, the successor is the one, for all who open")
    func bothPresent() throws {
        do {
            let environment = try open()
            let database = try environment.numberedBytes()
            try fill(environment, database)
            try environment.copy(to: directory.file("copy"), compacting: true)
        }
        #expect(rename(directory.file("copy"), directory.file("data.2.mdb")) == 0)
        let all = ["data.2.mdb", "data.2.mdb-lock", "data.mdb", "data.mdb-lock"]
        do {
            let environment = try open { $0.isReadOnly = true }
            try expectContent(environment, try environment.numberedBytes())
            #expect(environment.filePath.hasSuffix("/data.2.mdb"))
            #expect(fileNames(in: directory.path) == all)
        }
        let environment = try open()
        let database = try environment.numberedBytes()
        try expectContent(environment, database)
        #expect(fileNames(in: directory.path) == all)
        try environment.write { try database.put(100, Self.value(100), in: $0) }
        #expect(fileNames(in: directory.path) == Array(all.prefix(2)))
        try expectContent(environment, database, count: 101)
    }

    @Test("An environment that has the former file open follows to a successor whose maker died")
    func followUnfinished() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try fill(environment, database)
        try environment.copy(to: directory.file("copy"), compacting: true)
        #expect(rename(directory.file("copy"), directory.file("data.2.mdb")) == 0)
        try environment.write { try database.put(100, Self.value(100), in: $0) }
        #expect(environment.filePath.hasSuffix("/data.2.mdb"))
        #expect(fileNames(in: directory.path) == ["data.2.mdb", "data.2.mdb-lock"])
        try expectContent(environment, database, count: 101)
    }

    @Test("Copies that were not completed are ignored, and removed by the first write; other files are left alone")
    func unfinishedCopy() throws {
        let others = ["data", "data.02.mdb", "data.1.mdb", "data.2.mdbx", "data.mdb-lock.txt", "data.x.mdb", "xdata.2.mdb"]
        do {
            let environment = try open()
            try fill(environment, try environment.numberedBytes())
        }
        for name in others + ["data.2.mdb-new", "data.2.mdb-lock"] {
            try overwrite(directory.file(name), at: 0, with: [1, 2, 3])
        }
        let environment = try open()
        let database = try environment.numberedBytes()
        try expectContent(environment, database)
        try environment.write { try database.put(100, Self.value(100), in: $0) }
        #expect(fileNames(in: directory.path) == (others + ["data.mdb", "data.mdb-lock"]).sorted())
        // and one that appears later does not stand in the way
        try overwrite(directory.file("data.2.mdb-new"), at: 0, with: [1, 2, 3])
        try environment.shrink()
        #expect(fileNames(in: directory.path) == (others + ["data.2.mdb", "data.2.mdb-lock"]).sorted())
        try expectContent(environment, database, count: 101)
        for name in others { #expect(fileSize(directory.file(name)) == 3) }
    }

    @Test("A successor that is no LMDB file, or lacks a database, is an error, and the data is still there")
    func badSuccessor() throws {
        let environment = try open()
        let database = try environment.numberedBytes()
        try fill(environment, database)
        try overwrite(directory.file("data.2.mdb"), at: 0, with: [UInt8](repeating: 1, count: 10_000))
        expectError(.invalid) { try environment.read { _ in } }
        #expect(unlink(directory.file("data.2.mdb")) == 0)
        try expectContent(environment, database)
        do { _ = try Environment.open(at: directory.file("other.mdb"), configuration: .small()) }
        #expect(rename(directory.file("other.mdb"), directory.file("data.2.mdb")) == 0)
        expectError(.notFound) { try environment.write { _ in } }
        #expect(unlink(directory.file("data.2.mdb")) == 0)
        try expectContent(environment, database)
        try environment.shrink()
        try expectContent(environment, database)
    }

    @Test("Who has made a successor removes nothing of those that came after it meanwhile")
    func obsoleteNames() {
        let names = FileGenerations(first: "data.mdb")
        let files = [
            "data.mdb", "data.mdb-lock", "data.2.mdb", "data.2.mdb-lock", "data.3.mdb", "data.3.mdb-lock", "data.3.mdb-new",
            "data.4.mdb-new", "data.4.mdb-new-lock", "data.4.mdb-lock", "other.mdb", "data.2.mdb-new",
        ]
        let old = ["data.mdb", "data.mdb-lock", "data.2.mdb", "data.2.mdb-lock", "data.2.mdb-new"]
        #expect(names.predecessors(of: 3, among: files) == old)
        #expect(names.predecessors(of: 1, among: files).isEmpty)
        // with the write lock nobody else can be at work
        let begun = ["data.3.mdb-new", "data.4.mdb-lock", "data.4.mdb-new", "data.4.mdb-new-lock"]
        #expect(names.obsolete(beside: 3, among: files) == old + begun)
        // a generation that is there is never removed, whatever its number
        #expect(!names.obsolete(beside: 2, among: files).contains("data.3.mdb"))
    }

    @Test("The names of generations are told from all others")
    func generationNames() {
        for first in ["index.mdb", "data", ".hidden", "a.b.c", "é.mdb"] {
            let names = FileGenerations(first: first)
            for generation in [1, 2, 9, 10, 123_456_789] {
                let name = names.name(of: generation)
                #expect(names.generation(of: name) == generation)
                #expect(names.owns(name) && names.owns(name + "-lock") && names.owns(name + "-new"))
                #expect(names.generation(of: name + "-lock") == nil)
                #expect(!names.owns("x" + name) && !names.owns(name + "x") && !names.owns(name + "-lock-lock"))
            }
        }
        let names = FileGenerations(first: "index.mdb")
        #expect(names.name(of: 2) == "index.2.mdb")
        for name in [
            "", "index", "index.mdb.2", "index.1.mdb", "index.0.mdb", "index.-2.mdb", "index.+2.mdb", "index..mdb",
            "index.2", "index.2.3.mdb", "index.99999999999999999999.mdb", "Index.2.mdb", "-lock", "-new",
        ] {
            #expect(!names.owns(name), "\(name)")
        }
        #expect(names.newest(among: ["index.mdb", "index.10.mdb", "index.9.mdb", "index.11.mdb-new"]) == 10)
        #expect(names.newest(among: ["volumes"]) == nil)
    }
}
