#if os(Linux)
    import Glibc
    import LMDB
    import Testing

    /// A file system of its own in memory, of a given size, for one test. Only root may mount one.
    private final class TinyFileSystem {
        let path: String

        /// Whether this process may mount one; found out by doing so.
        static let isPossible = { (try? TinyFileSystem(byteCount: 1 << 20)) != nil }()

        init(byteCount: Int) throws {
            var template = Array("/tmp/lmdb-tests-full-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw SystemFailure(code: errno) }
            path = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
            guard mount("tmpfs", path, "tmpfs", 0, "size=\(byteCount)") == 0 else {
                let code = errno
                rmdir(path)
                throw SystemFailure(code: code)
            }
        }

        deinit {
            umount2(path, Int32(MNT_DETACH))
            rmdir(path)
        }
    }

    @Suite("Full disk", .enabled(if: TinyFileSystem.isPossible, "mounting a small file system takes root's rights"))
    struct DiskFullTests {
        @Test("A full disk refuses the write, loses nothing, and is written to again once there is room")
        func fullDisk() throws {
            let disk = try TinyFileSystem(byteCount: 1 << 20)
            let ballast = "\(disk.path)/ballast"
            try overwrite(ballast, at: 0, with: [UInt8](repeating: 1, count: 200_000))
            var stored = 0
            do {
                let environment = try Environment.open(
                    at: "\(disk.path)/data.mdb", configuration: .small { $0.mapSize = 1 << 24 })
                let database = try environment.numberedBytes()
                expectError(.noSpace) {
                    while true {
                        try environment.write { transaction in
                            try database.put(UInt64(stored), [UInt8](repeating: UInt8(stored), count: 30_001), in: transaction)
                        }
                        stored += 1
                    }
                }
                #expect(stored > 10)
                try expectStored(stored, environment, database)
                expectError(.noSpace) { try environment.copy(to: "\(disk.path)/copy.mdb", compacting: false) }
                #expect(!fileNames(in: disk.path).contains("copy.mdb"))

                #expect(unlink(ballast) == 0)
                try environment.write { transaction in
                    try database.put(UInt64(stored), [UInt8](repeating: UInt8(stored), count: 30_001), in: transaction)
                }
                stored += 1
            }
            let environment = try Environment.open(at: "\(disk.path)/data.mdb", configuration: .small())
            try expectStored(stored, environment, try environment.numberedBytes())
        }

        private func expectStored(_ count: Int, _ environment: Environment, _ database: NumberedBytes) throws {
            try environment.read { transaction in
                expectEqual(try database.count(in: transaction), count)
                for key in 0..<count {
                    expectEqual(try database.get(UInt64(key), in: transaction), [UInt8](repeating: UInt8(key), count: 30_001))
                }
            }
        }

        @Test("What a refused commit has appended is given back, so that deleting can make room")
        func refusedCommit() throws {
            let disk = try TinyFileSystem(byteCount: 1 << 20)
            let path = "\(disk.path)/data.mdb"
            let environment = try Environment.open(at: path, configuration: .small { $0.mapSize = 1 << 24 })
            let database = try environment.numberedBytes()
            try environment.write { transaction in
                for key in 0..<10 {
                    try database.put(UInt64(key), [UInt8](repeating: UInt8(key), count: 30_001), in: transaction)
                }
            }
            let size = try fileSize(path)
            expectError(.noSpace) {
                try environment.write { transaction in
                    for key in 10..<60 {
                        try database.put(UInt64(key), [UInt8](repeating: 1, count: 30_001), in: transaction)
                    }
                }
            }
            #expect(try fileSize(path) == size)
            try expectStored(10, environment, database)
            try environment.write { try #expect(database.delete(9, in: $0)) }
            try expectStored(9, environment, database)
        }

        private func fileSize(_ path: String) throws -> Int {
            var status = stat()
            guard stat(path, &status) == 0 else { throw SystemFailure(code: errno) }
            return Int(status.st_size)
        }

        @Test("A file for whose successor there is no room stays as it is, and nothing is left of the successor")
        func noRoomToShrink() throws {
            let disk = try TinyFileSystem(byteCount: 2 << 20)
            let environment = try Environment.shrinkable(in: disk.path)
            let database = try environment.numberedBytes()
            try environment.write { transaction in
                for key in 0..<20 {
                    try database.put(UInt64(key), [UInt8](repeating: UInt8(key), count: 30_001), in: transaction)
                }
            }
            // from no room at all to almost enough
            for room in [0, 4096, 100_000, 500_000] {
                let ballast = "\(disk.path)/ballast"
                let free = try freeSpace(disk.path)
                try overwrite(ballast, at: 0, with: [UInt8](repeating: 1, count: free - room))
                expectError(.noSpace) { try environment.shrink() }
                #expect(fileNames(in: disk.path) == ["ballast", "data.mdb", "data.mdb-lock"])
                try expectStored(20, environment, database)
                #expect(unlink(ballast) == 0)
                // A child that another test forks may hold what is removed here open for a moment.
                while try freeSpace(disk.path) < free { usleep(1000) }
                try environment.write { try database.put(0, [UInt8](repeating: 0, count: 30_001), in: $0) }
            }
            try environment.shrink()
            #expect(fileNames(in: disk.path) == ["data.2.mdb", "data.2.mdb-lock"])
            try expectStored(20, environment, database)
        }

        private func freeSpace(_ path: String) throws -> Int {
            var status = statvfs()
            guard statvfs(path, &status) == 0 else { throw SystemFailure(code: errno) }
            return Int(status.f_bavail * UInt(status.f_frsize))
        }

        @Test("On a disk without room for a new file, opening is an error")
        func noRoomToOpen() throws {
            let disk = try TinyFileSystem(byteCount: 64 << 10)
            let descriptor = open("\(disk.path)/ballast", O_WRONLY | O_CREAT, 0o600)
            let bytes = [UInt8](repeating: 1, count: 4096)
            while write(descriptor, bytes, bytes.count) > 0 {}
            close(descriptor)
            expectError(.noSpace) { try Environment.open(at: "\(disk.path)/data.mdb", configuration: .small()) }
        }
    }
#endif
