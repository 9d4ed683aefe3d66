import LMDB
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Files with a flipped bit, or with other nonsense in their trees: an error or what can be read, never the end of the process.
///
/// `REELKV_FLIPS` is how many bits are flipped, if not 2,000.
@Suite("Damaged trees", .timeLimit(.minutes(60)))
struct TreeCheckTests {
    static let flips = getenv("REELKV_FLIPS").flatMap { Int(String(cString: $0)) } ?? 2000
    /// Flips that one process tries; a crash is looked for among so many.
    private static let batch = 250

    private static func configuration() -> Environment.Configuration { .small { $0.mapSize = 256 << 10 } }

    /// Trees of one to three levels, values on overflow pages, a free list, and pages at the file's end that are free.
    private static func make(_ path: String) throws {
        var random = SeededGenerator(seed: 1)
        let environment = try Environment.open(at: path, configuration: configuration())
        let databases = try ["a", "b", "c"].map { try environment.numberedBytes($0) }
        for round in 0..<12 {
            try environment.write { transaction in
                for _ in 0..<120 {
                    let key = UInt64.random(in: 0..<2000, using: &random)
                    let database = databases[round < 2 ? 2 : Int.random(in: 0..<2, using: &random)]
                    let size = Int.random(in: 0..<20, using: &random) == 0 ? 9000 : Int.random(in: 0..<200, using: &random)
                    try database.put(key, random.bytes(size), in: transaction)
                }
                if round % 3 == 2 { _ = try databases[0].delete(in: .upTo(500), in: transaction) }
            }
        }
    }

    /// Uses everything in the file. Errors are as good as answers.
    private static func use(_ path: String) {
        func attempt(_ body: () throws -> Void) {
            do { try body() } catch {
                guard error is LMDBError else { fatalError("another error: \(error)") }
            }
        }
        attempt {
            let environment = try Environment.open(at: path, configuration: configuration())
            for name in ["a", "b", "c", "new"] {
                attempt {
                    let database = try environment.numberedBytes(name)
                    attempt { try environment.read { try database.forEach(in: .all, in: $0) { _, _ in .continue } } }
                    for key: UInt64 in [0, 300, 999, 1999] {
                        attempt { _ = try environment.read { try database.get(key, in: $0)?.reduce(0, &+) } }
                    }
                    attempt { try environment.write { _ = try database.delete(in: .upTo(300), in: $0) } }
                    attempt {
                        try environment.write { transaction in
                            for key: UInt64 in 0..<40 {
                                try database.put(key * 50, Array(repeating: 7, count: 300), in: transaction)
                            }
                        }
                    }
                    attempt { try environment.write { try database.put(5000, Array(repeating: 7, count: 20_000), in: $0) } }
                }
            }
            attempt { _ = try environment.freeBytes() }
            attempt { try environment.copy(to: path + "-copy", compacting: true) }
            unlink(path + "-copy")
        }
    }

    /// Flips one bit, in a place that depends on the seed alone; half of them where page headers and the tables behind them are.
    private static func flip(_ bytes: inout [UInt8], seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        var place = Int.random(in: 0..<bytes.count, using: &random)
        if Bool.random(using: &random) { place = place / 4096 * 4096 + Int.random(in: 0..<160, using: &random) }
        bytes[min(place, bytes.count - 1)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    }

    @Test("Every flipped bit is an error, or leaves what can be read and written")
    func flippedBits() async throws {
        let directory = try TemporaryDirectory()
        try Self.make(directory.file())
        for first in stride(from: 0, to: Self.flips, by: Self.batch) {
            await #expect(processExitsWith: .success, "seeds from \(first)") {
                [path = directory.path as String, first = first as Int] in
                let whole = try readFile(path + "/data.mdb")
                for seed in first..<first + TreeCheckTests.batch {
                    var bytes = whole
                    TreeCheckTests.flip(&bytes, seed: seed)
                    let file = path + "/flipped-\(first).mdb"
                    // What is there when the process ends is what ended it.
                    try overwrite(path + "/seed-\(first)", at: 0, with: Array("\(seed)".utf8))
                    unlink(file)
                    unlink(file + "-lock")
                    try overwrite(file, at: 0, with: bytes)
                    TreeCheckTests.use(file)
                }
            }
        }
    }

    @Test("A whole file passes, while another process writes to it")
    func wholeFiles() async throws {
        let directory = try TemporaryDirectory()
        try Self.make(directory.file())
        await #expect(processExitsWith: .success) { [path = directory.path as String] in
            // Closed and opened anew each time, so checked each time; its own commits come in between.
            var random = SeededGenerator(seed: 2)
            for _ in 0..<200 {
                let environment = try Environment.open(at: path + "/data.mdb", configuration: TreeCheckTests.configuration())
                let database = try environment.numberedBytes("a")
                try environment.write { transaction in
                    for _ in 0..<5 {
                        let key = UInt64.random(in: 0..<3000, using: &random)
                        if Bool.random(using: &random) {
                            _ = try database.delete(key, in: transaction)
                        } else {
                            try database.put(key, random.bytes(Int.random(in: 0..<5000, using: &random)), in: transaction)
                        }
                    }
                }
            }
        }
    }
}
