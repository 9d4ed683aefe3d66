import Dispatch
import KVCodec
import ReelKV
import Testing
import Locking

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A store of sequences that can be told from their numbers: sequence `n` is always the same tokens.
enum Numbered {
    /// A page of 64 tokens takes about 200 KiB, so that pages dominate over LMDB's own.
    static let model = ModelSpec.small(layers: 4, heads: 4, dim: 64)
    /// One full page and a tail piece.
    static let tokens = 100

    static func name(_ number: Int) -> SequenceName { .session("n\(number)") }

    static func cache(_ number: Int) -> SyntheticCache {
        SyntheticCache(model, .text(tokens, seed: UInt64(7000 + number)))
    }

    static func write(_ numbers: some Sequence<Int>, to store: Store) throws {
        for number in numbers { try ReelKVTests.write(cache(number), as: name(number), to: store) }
    }

    static func remove(_ numbers: some Sequence<Int>, from store: Store) throws {
        for number in numbers { try store.remove(name(number)) }
    }

    /// A store of which one in ten sequences is left, scattered over its volumes.
    static func mostlyDead(
        in folder: TemporaryFolder, count: Int = 60, volumeBytesMax: Int = 4 << 20
    ) throws -> (store: Store, left: [Int]) {
        let store = try makeStore(in: folder, model, volumeBytesMax: volumeBytesMax)
        try write(0..<count, to: store)
        let left = Array(stride(from: 3, to: count, by: 10))
        try remove((0..<count).filter { !left.contains($0) }, from: store)
        return (store, left)
    }

    /// Whether a restore of the whole sequence gives what was appended.
    static func isRight(_ number: Int, in store: Store) throws -> Bool {
        let cache = cache(number)
        let prefix = try store.longestPrefix(of: cache.tokens, model: model.name)
        guard prefix.tokenCount == tokens else { return false }
        return try restored(store, prefix).enumerated().allSatisfy { $1 == cache.bytes(layer: $0, 0..<tokens) }
    }

    static func expectRight(
        _ numbers: some Sequence<Int>, in store: Store, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        for number in numbers {
            #expect(try isRight(number, in: store), "sequence \(number) changed", sourceLocation: sourceLocation)
        }
    }
}

/// A sign between two processes: a file that is there or not.
struct FileSign: Sendable {
    let path: String

    func give() { fclose(fopen(path, "w")) }

    var isGiven: Bool { access(path, F_OK) == 0 }

    func wait() { while !isGiven { usleep(1000) } }
}

/// Work on a thread of its own. Each process that a test waits for takes one of the few threads that tests share, so what such a process
/// itself waits for must not need one of them.
final class Aside<Result: Sendable>: Sendable {
    private let outcome = Mutex<Swift.Result<Result, any Error>?>(nil)

    init(_ work: @escaping @Sendable () throws -> Result) {
        DispatchQueue(label: "aside").async { [self] in
            let result = Swift.Result(catching: work)
            outcome.withLock { $0 = result }
        }
    }

    /// What came of it, once it is done.
    func result() async throws -> Result {
        while true {
            if let result = outcome.withLock({ $0 }) { return try result.get() }
            try await Task.sleep(for: .milliseconds(1))
        }
    }
}

extension CompactionOptions {
    static func to(_ ratio: Double) -> CompactionOptions {
        var options = CompactionOptions()
        options.targetRatio = ratio
        return options
    }
}

/// Lengths of all files below a folder, by path.
func fileSizes(_ path: String) -> [String: Int] {
    var sizes: [String: Int] = [:]
    for name in TemporaryFolder.names(path) {
        var status = stat()
        guard lstat(path + "/" + name, &status) == 0 else { continue }
        if status.st_mode & S_IFMT == S_IFDIR {
            sizes.merge(fileSizes(path + "/" + name)) { first, _ in first }
        } else {
            sizes[path + "/" + name] = Int(status.st_size)
        }
    }
    return sizes
}

#if os(Linux)
    /// A file system of its own in memory, of a given size, for one test. Only root may mount one.
    final class TinyFileSystem {
        let path: String

        /// Whether this process may mount one; found out by doing so.
        static let isPossible = TinyFileSystem(byteCount: 1 << 20) != nil

        init?(byteCount: Int) {
            var template = Array("/tmp/reelkv-test-full-XXXXXX".utf8CString)
            guard let made = mkdtemp(&template) else { return nil }
            path = String(cString: made)
            guard mount("tmpfs", path, "tmpfs", 0, "size=\(byteCount)") == 0 else {
                rmdir(path)
                return nil
            }
        }

        deinit {
            umount2(path, Int32(MNT_DETACH))
            rmdir(path)
        }
    }
#endif
