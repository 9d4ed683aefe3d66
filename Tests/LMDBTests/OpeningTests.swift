import LMDB
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite("Opening")
struct OpeningTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func open(_ name: String = "data.mdb", _ change: (inout Environment.Configuration) -> Void = { _ in }) throws
        -> Environment
    {
        try Environment.open(at: directory.file(name), configuration: .small(change))
    }

    private func fill(_ name: String = "data.mdb", count: Int = 100) throws {
        let environment = try open(name)
        let database = try environment.numberedBytes()
        try environment.write { transaction in
            for key in 0..<count { try database.put(UInt64(key), [UInt8](repeating: 7, count: 1000), in: transaction) }
        }
    }

    // MARK: - One instance per file

    @Test("A file opened again is the same environment, whatever it is called")
    func sameInstance() throws {
        let environment = try open()
        #expect(try open() === environment)
        #expect(symlink(directory.file(), directory.file("symbolic")) == 0)
        #expect(link(directory.file(), directory.file("hard")) == 0)
        #expect(try open("symbolic") === environment)
        #expect(try open("hard") === environment)
        #expect(try Environment.open(at: "\(directory.path)/./data.mdb", configuration: .small()) === environment)
        #expect(fileNames(in: directory.path) == ["data.mdb", "data.mdb-lock", "hard", "symbolic"])
        #expect(environment.path.hasSuffix("/data.mdb"))
    }

    @Test("A file opened by many threads at once is one environment")
    func concurrentOpening() throws {
        for round in 0..<20 {
            let path = directory.file("\(round).mdb")
            let threads = (0..<4).map { thread in
                Thread {
                    do {
                        // Opening and closing race with each other, too.
                        let environment = try Environment.open(at: path, configuration: .small())
                        let database = try environment.numberedBytes()
                        try environment.write { try database.put(UInt64(thread), [1], in: $0) }
                    } catch {
                        Issue.record(error)
                    }
                }
            }
            for thread in threads { thread.join() }
            let environment = try open("\(round).mdb")
            let database = try environment.numberedBytes()
            #expect(try environment.read { try database.count(in: $0) } == 4)
        }
    }

    @Test("Another configuration for an open file is an error that names the difference")
    func conflictingConfiguration() throws {
        let environment = try open()
        do {
            _ = try open {
                $0.maxReaders = 7
                $0.durability = .relaxed
            }
            Issue.record("opened with two configurations")
        } catch let error as LMDBError {
            #expect(error.code == .busy)
            #expect(error.description.contains("maxReaders, durability"))
        }
        expectError(.busy) { try open { $0.isReadOnly = true } }
        _ = try environment.numberedBytes()
    }

    @Test("A closed file opens again, with its content and in another configuration")
    func reopening() throws {
        for round in 1...5 {
            let environment = try open { $0.maxReaders = round * 10 }
            let database = try environment.numberedBytes()
            try environment.write { try database.put(UInt64(round), [1], in: $0) }
            #expect(try environment.read { try database.count(in: $0) } == round)
            #expect(environment.information.maxReaders >= round * 10)
        }
    }

    @Test("A database handle keeps its environment open")
    func handleKeepsOpen() throws {
        let database = try open().numberedBytes()
        #expect(try open() === database.environment)
        try database.environment.write { try database.put(1, [1], in: $0) }
    }

    @Test("A file that takes the place of an open one is an error until that is closed")
    func replacedFile() throws {
        do {
            let environment = try open()
            let database = try environment.numberedBytes()
            #expect(unlink(directory.file()) == 0)
            expectError(.busy) { try open() }
            try environment.write { try database.put(1, [1], in: $0) }
        }
        let environment = try open()
        let database = try environment.numberedBytes()
        #expect(try environment.read { try database.count(in: $0) } == 0)
    }

    // MARK: - Settings

    @Test("Settings that make no sense are errors")
    func badConfigurations() throws {
        expectError(.invalidArgument) { try open { $0.mapSize = 0 } }
        expectError(.invalidArgument) { try open { $0.mapSize = -1 } }
        expectError(.invalidArgument) { try open { $0.mapSize = $0.maxMapSize + 1 } }
        expectError(.invalidArgument) { try open { $0.maxMapSize = Int.max } }
        expectError(.invalidArgument) { try open { $0.maxReaders = 0 } }
        expectError(.invalidArgument) { try open { $0.maxDatabases = -1 } }
        expectError(.invalidArgument) { try open { $0.usesLocks = false } }
        expectError(.invalidArgument) { try open { $0.fileMode = 0o1777 } }
        #expect(fileNames(in: directory.path).isEmpty)
    }

    @Test("New files have the permissions asked for")
    func permissions() throws {
        let environment = try open()
        for name in fileNames(in: directory.path) {
            var status = stat()
            #expect(stat(directory.file(name), &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600)
        }
        #expect(environment.configuration.fileMode == 0o600)
    }

    @Test("A file larger than the map asked for is mapped whole")
    func smallMap() throws {
        try fill(count: 500)
        let environment = try open {
            $0.mapSize = 4096; $0.growsMap = false
        }
        let database = try environment.numberedBytes()
        #expect(try environment.read { try database.count(in: $0) } == 500)
        #expect(environment.information.usedBytes <= environment.information.mapSize)
    }

    @Test("Relaxed durability and no read-ahead change nothing that can be read back")
    func relaxed() throws {
        do {
            let environment = try open {
                $0.durability = .relaxed
                $0.readAhead = false
            }
            let database = try environment.numberedBytes()
            try environment.write { try database.put(1, [UInt8](repeating: 1, count: 100_000), in: $0) }
            try environment.sync()
        }
        let environment = try open()
        let database = try environment.numberedBytes()
        #expect(try environment.read { try database.get(1, in: $0)?.count } == 100_000)
    }

    // MARK: - Read-only

    @Test("A read-only environment reads and refuses to write")
    func readOnly() throws {
        try fill()
        let environment = try open { $0.isReadOnly = true }
        let database = try environment.numberedBytes()
        #expect(try environment.read { try database.count(in: $0) } == 100)
        expectError(.permissionDenied) { try environment.write { _ in Issue.record("the write ran") } }
        expectError(.permissionDenied) { try environment.sync() }
        expectError(.notFound) { try environment.numberedBytes("new") }
    }

    @Test("A sealed file read without locks needs no lock file and has no limit to readers")
    func withoutLocks() throws {
        try fill()
        #expect(unlink(directory.file("data.mdb-lock")) == 0)
        let environment = try open {
            $0.isReadOnly = true
            $0.usesLocks = false
            $0.maxReaders = 1
        }
        let database = try environment.numberedBytes()
        try environment.read { outer in
            try environment.read { inner in
                expectEqual(try database.count(in: outer), 100)
                expectEqual(try database.get(7, in: inner), [UInt8](repeating: 7, count: 1000))
            }
        }
        #expect(environment.information.readersInUse == 0)
        expectEqual(try environment.clearStaleReaders(), 0)
        expectError(.permissionDenied) { try environment.write { _ in } }
        #expect(fileNames(in: directory.path) == ["data.mdb"])
    }

    @Test("What is not there cannot be opened read-only, and nothing is created")
    func readOnlyMissing() throws {
        expectError(.noSuchFile) { try open { $0.isReadOnly = true } }
        expectError(.noSuchFile) { try open("missing/data.mdb") }
        try overwrite(directory.file("empty.mdb"), at: 0, with: [])
        expectError(.invalid) { try open("empty.mdb") { $0.isReadOnly = true } }
        #expect(fileNames(in: directory.path) == ["empty.mdb"])
    }

    // MARK: - What is no LMDB file

    @Test("Paths that name no file are errors")
    func badPaths() {
        expectError(.isDirectory) { try Environment.open(at: directory.path, configuration: .small()) }
        expectError(.isDirectory) { try Environment.open(at: directory.path, configuration: .small { $0.isReadOnly = true }) }
        expectError(.invalidArgument) { try Environment.open(at: "", configuration: .small()) }
        expectError(.invalidArgument) { try open("a\u{0}b") }
        expectError(.invalidArgument) { try Environment.open(at: "/dev/null", configuration: .small()) }
    }

    @Test("A file of another kind is an error and stays as it is", arguments: [1, 100, 5000, 20_000])
    func otherFile(byteCount: Int) throws {
        var random = SeededGenerator(seed: UInt64(byteCount))
        try overwrite(directory.file(), at: 0, with: random.bytes(byteCount))
        expectError(.invalid) { try open() }
        expectError(.invalid) { try open { $0.isReadOnly = true } }
        #expect(fileSize(directory.file()) == byteCount)
        #expect(fileNames(in: directory.path) == ["data.mdb"])
    }

    @Test("A file of another LMDB format is an error")
    func otherVersion() throws {
        try fill()
        try overwrite(directory.file(), at: 20, with: [2])
        expectError(.versionMismatch) { try open() }
    }

    @Test("Damaged meta pages are errors")
    func damagedMetaPages() throws {
        try fill()
        let pageSize = try open().information.pageSize
        // Page flags, magic, page size, number of pages: none, and more than there can be.
        let damages: [(offset: Int, bytes: [UInt8])] = [
            (10, [0]), (16, [0]), (40, [1, 2, 3, 4]), (40, [0, 0]), (136, [UInt8](repeating: 0, count: 8)),
            (136, [UInt8](repeating: 0xff, count: 8)), (136, [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]),
        ]
        for (index, damage) in damages.enumerated() {
            let name = "damaged-\(index).mdb"
            try copyFile(directory.file(), directory.file(name))
            for metaPage in 0...1 {
                try overwrite(directory.file(name), at: metaPage * pageSize + damage.offset, with: damage.bytes)
            }
            expectError(.invalid) { try open(name) }
        }
        let environment = try open()
        let database = try environment.numberedBytes()
        #expect(try environment.read { try database.count(in: $0) } == 100)
    }

    @Test("A database with duplicate keys is refused, since its entries would be misread")
    func duplicateKeys() throws {
        try fill()
        // The name of a database lies right before its record, whose flags are at 4.
        let bytes = try readFile(directory.file())
        let name = Array("bytes".utf8)
        let places = bytes.indices.filter { bytes[$0...].starts(with: name) }
        #expect(!places.isEmpty)
        for place in places { try overwrite(directory.file(), at: place + name.count + 4, with: [0x04]) }
        expectError(.incompatible) { try open() }
    }

    @Test("A file that was cut short is an error, wherever it was cut")
    func truncated() throws {
        try fill()
        let size = fileSize(directory.file())
        for length in [1, 151, 152, 4096, 4096 + 151, 8192, 8193, size / 2, size - 4096, size - 1] {
            let name = "cut-\(length).mdb"
            try copyFile(directory.file(), directory.file(name))
            #expect(truncate(directory.file(name), off_t(length)) == 0)
            expectError(.invalid) { try open(name) }
            expectError(.invalid) {
                try open(name) {
                    $0.isReadOnly = true; $0.usesLocks = false
                }
            }
        }
    }

    @Test("A file that ends before pages that were never used is whole")
    func shortButWhole() throws {
        var random = SeededGenerator(seed: 4)
        var shortCount = 0
        for round in 0..<60 {
            // A new file now and then: one that has many free pages does not end early again.
            let name = "\(round / 20).mdb"
            try takeAndGiveBackPages(name, using: &random)
            let size = fileSize(directory.file(name))
            try expectWhole(name)
            if try size < open(name).information.usedBytes { shortCount += 1 }
        }
        // Without such files the test would show nothing.
        #expect(shortCount > 0)
    }

    /// Pages that are taken and given back within one transaction are the ones that LMDB counts and never writes.
    private func takeAndGiveBackPages(_ name: String, using random: inout SeededGenerator) throws {
        let environment = try open(name)
        let database = try environment.numberedBytes()
        let first = UInt64.random(in: 0..<1000, using: &random)
        let count = UInt64.random(in: 0..<400, using: &random)
        try environment.write { transaction in
            for key in first..<first + count {
                let size = Int.random(in: 0...1500, using: &random)
                try database.put(key, [UInt8](repeating: UInt8(key & 0xff), count: size), in: transaction)
            }
            try database.delete(in: .from(first + UInt64.random(in: 0...count, using: &random)), in: transaction)
        }
    }

    private func expectWhole(_ name: String) throws {
        let environment = try open(name) { $0.isReadOnly = true }
        let database = try environment.numberedBytes()
        try environment.read { transaction in
            try database.forEach(in: .all, in: transaction) { key, value in
                expectEqual(value, [UInt8](repeating: UInt8(key & 0xff), count: value.count))
                return .continue
            }
        }
    }

    /// A file with a free list of several levels and with values that take pages of their own, its last pages free.
    private func makeFileWithFreeTail() throws {
        let environment = try open { $0.mapSize = 1 << 26 }
        let database = try environment.numberedBytes()
        try environment.write { transaction in
            for key in 0..<UInt64(2500) {
                try database.put(key, [UInt8](repeating: UInt8(key & 0xff), count: 1500), in: transaction)
            }
        }
        try environment.write { _ = try database.delete(in: .from(100), in: $0) }
        for _ in 0..<4 { try environment.write { try database.put(0, [0], in: $0) } }
        // Under a reader nothing on the list can be used, so every write adds to it.
        try environment.read { _ in
            for key in 0..<UInt64(100) { try environment.write { try database.put(key, [UInt8(key)], in: $0) } }
        }
    }

    @Test("A file cut within its free pages is whole; cut any further it is an error")
    func cutWithinFreePages() throws {
        try makeFileWithFreeTail()
        let pageSize = try open().information.pageSize
        let pageCount = fileSize(directory.file()) / pageSize
        var wholeCount = 0
        for pages in stride(from: pageCount - 1, through: 2, by: -10) {
            #expect(truncate(directory.file(), off_t(pages * pageSize)) == 0)
            do {
                _ = try open { $0.isReadOnly = true }
            } catch let error as LMDBError where error.code == .invalid {
                break
            }
            try expectWhole("data.mdb")
            wholeCount += 1
        }
        #expect(wholeCount > 10)
        #expect(fileSize(directory.file()) > 100 * pageSize)
        expectError(.invalid) { try open() }
    }

    @Test("A damaged free list of a file that ends early is an error, never a crash", arguments: 0..<3)
    func damagedFreeList(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        try makeFileWithFreeTail()
        let size = fileSize(directory.file()) - 4096
        #expect(truncate(directory.file(), off_t(size)) == 0)
        try expectWhole("data.mdb")
        let garbage = seed == 0 ? [UInt8](repeating: 0, count: size - 8192) : random.bytes(size - 8192)
        try overwrite(directory.file(), at: 8192, with: garbage)
        expectError(.invalid) { try open() }
    }

    @Test("A lock file of another kind is an error that says so")
    func damagedLockFile() async throws {
        let environment = try open()
        await #expect(processExitsWith: .success) { [path = directory.file() as String] in
            // Not in the process that has the file open: closing a descriptor of the lock file drops all of its locks.
            try overwrite(path + "-lock", at: 0, with: [0, 0, 0, 0])
            do {
                _ = try Environment.open(at: path, configuration: .small())
                Issue.record("opened with a damaged lock file")
            } catch let error as LMDBError {
                #expect(error.code == .invalid)
                #expect(error.description.contains("data.mdb-lock"))
            }
        }
        #expect(environment.configuration == .small())
    }

    #if os(Linux)
        @Test("A lock file whose maker was killed halfway is no reason to take the file for empty")
        func halfMadeLockFile() async throws {
            try fill()
            let lockPath = directory.file("data.mdb-lock")
            // LMDB 0.9 has the number of the last write behind a magic number, a version and a mutex.
            let number = Array(try readFile(lockPath)[48..<56])
            #expect(number == [2, 0, 0, 0, 0, 0, 0, 0])
            for content in [
                [UInt8](repeating: 0, count: 64), Array(try readFile(lockPath)[..<48]) + [UInt8](repeating: 0, count: 8),
            ] {
                try overwrite(lockPath, at: 0, with: content)
                // As long as somebody else has the file open, nobody can set the lock file up anew.
                let descriptor = Glibc.open(lockPath, O_RDWR)
                var lock = flock(l_type: Int16(F_RDLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 1, l_pid: 0)
                #expect(fcntl(descriptor, F_SETLK, &lock) == 0)
                await #expect(processExitsWith: .success) { [path = directory.file() as String] in
                    do {
                        let environment = try Environment.open(at: path, configuration: .small())
                        Issue.record("opened, with \(environment.information.lastTransactionID) writes")
                    } catch let error as LMDBError {
                        #expect(error.code == .invalid || error.code == .badReaderSlot)
                        #expect(error.description.contains("data.mdb-lock"))
                    }
                }
                close(descriptor)
                let environment = try open()
                let database = try environment.numberedBytes()
                #expect(try environment.read { try database.count(in: $0) } == 100)
            }
        }
    #endif
}
