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

/// A directory of its own for one test, gone with its files when the test ends.
final class TemporaryDirectory {
    let path: String

    init() throws {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(base)/lmdb-tests-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemFailure(code: errno) }
        path = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
    }

    deinit {
        for name in fileNames(in: path) { unlink("\(path)/\(name)") }
        rmdir(path)
    }

    func file(_ name: String = "data.mdb") -> String { "\(path)/\(name)" }
}

struct SystemFailure: Error {
    let code: Int32
}

/// An error that the library knows nothing of.
struct Interruption: Error {}

func fileNames(in directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}

func fileSize(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : -1
}

/// Overwrites bytes of a file in place.
func overwrite(_ path: String, at offset: Int, with bytes: [UInt8]) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
    guard descriptor >= 0 else { throw SystemFailure(code: errno) }
    defer { close(descriptor) }
    guard pwrite(descriptor, bytes, bytes.count, off_t(offset)) == bytes.count else { throw SystemFailure(code: errno) }
}

func readFile(_ path: String) throws -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { throw SystemFailure(code: errno) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: fileSize(path))
    guard read(descriptor, &bytes, bytes.count) == bytes.count else { throw SystemFailure(code: errno) }
    return bytes
}

func copyFile(_ source: String, _ destination: String) throws {
    try overwrite(destination, at: 0, with: try readFile(source))
}

/// A part of a file, to be locked with `fcntl`.
func flockRange(_ kind: Int32, first: Int, count: Int) -> flock {
    var range = flock()
    range.l_type = Int16(kind)
    range.l_whence = Int16(SEEK_SET)
    range.l_start = off_t(first)
    range.l_len = off_t(count)
    return range
}

#if os(Linux)
    /// Limits this process to the address space that it has now and `bytesMore`.
    func limitAddressSpace(bytesMore: Int) throws {
        let descriptor = open("/proc/self/statm", O_RDONLY)
        defer { close(descriptor) }
        var text = [UInt8](repeating: 0, count: 100)
        let count = read(descriptor, &text, text.count)
        let pages = text.prefix(max(count, 0)).split(separator: UInt8(ascii: " ")).first.flatMap {
            Int(String(decoding: $0, as: UTF8.self))
        }
        guard let pages else { throw SystemFailure(code: errno) }
        let bytes = rlim_t(pages * Int(sysconf(Int32(_SC_PAGESIZE))) + bytesMore)
        var limit = rlimit(rlim_cur: bytes, rlim_max: bytes)
        guard setrlimit(__rlimit_resource_t(UInt32(RLIMIT_AS.rawValue)), &limit) == 0 else { throw SystemFailure(code: errno) }
    }
#endif

/// SplitMix64: the same numbers on every run.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
    }
}

extension Environment.Configuration {
    /// Small enough that tests reach its limits.
    static func small(_ change: (inout Self) -> Void = { _ in }) -> Self {
        var configuration = Self()
        configuration.mapSize = 1 << 20
        configuration.maxMapSize = 1 << 30
        change(&configuration)
        return configuration
    }
}

typealias NumberedBytes = Database<BigEndianUInt64, RawBytes>

extension Environment {
    func numberedBytes(_ name: String? = "bytes") throws -> NumberedBytes {
        try database(named: name, keys: BigEndianUInt64.self, values: RawBytes.self, creating: true)
    }
}

/// Runs `body` in another thread and waits for it to end. Not a task: LMDB's rules speak of threads.
final class Thread: @unchecked Sendable {
    private var identifier: pthread_t?
    private let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { context in
                if let context { Unmanaged<Thread>.fromOpaque(context).takeRetainedValue().body() }
                return nil
            }, context)
        if result == 0 { identifier = thread }
    }

    func join() {
        if let identifier { pthread_join(identifier, nil) }
        identifier = nil
    }
}

/// Something that a thread waits for and another one makes happen, once or more often.
final class Signal: Sendable {
    private let semaphore = DispatchSemaphore(value: 0)

    func send() { semaphore.signal() }

    func wait() { semaphore.wait() }
}

// MARK: - Expectations

// The macro takes an expression apart and copies its pieces, which transactions and cursors cannot be.

func expectEqual<T: Equatable>(_ found: T?, _ expected: T?, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(found == expected, sourceLocation: sourceLocation)
}

func expectTrue(_ condition: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(condition, sourceLocation: sourceLocation)
}

/// Expects `body` to throw an ``LMDBError`` of this code.
func expectError<R>(
    _ code: LMDBError.Code, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> R
) {
    do {
        _ = try body()
        Issue.record("no error was thrown where \(LMDBError(code, "")) is expected", sourceLocation: sourceLocation)
    } catch let error as LMDBError {
        #expect(error.code == code, "\(error)", sourceLocation: sourceLocation)
        #expect(!error.context.isEmpty, sourceLocation: sourceLocation)
    } catch {
        Issue.record(error, sourceLocation: sourceLocation)
    }
}
