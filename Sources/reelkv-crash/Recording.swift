#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Every change that a process made to the files of a folder, in order, as `tools/lib/recording.c` writes them down.
struct Recording {
    enum Change {
        /// What the process said on its standard output.
        case said(String)
        case made(path: String, file: UInt64)
        case folderMade(path: String)
        /// `bytes` is a place in ``Recording/bytes``; `isDurable` says that the content was on the disk when the call returned (`O_DSYNC`).
        case written(file: UInt64, offset: Int, bytes: Range<Int>, isDurable: Bool)
        case flushed(file: UInt64)
        case folderFlushed(path: String)
        case resized(file: UInt64, length: Int)
        case renamed(path: String, to: String)
        case linked(path: String, to: String)
        case removed(path: String)
    }

    let bytes: [UInt8]
    let changes: [Change]

    private static let headerSize = 40

    init(readingFrom path: String) throws {
        guard let bytes = Self.read(path) else {
            throw CrashRun.Fault(description: "cannot read \(path): \(String(cString: strerror(errno)))")
        }
        self.bytes = bytes
        var (changes, place) = ([Change](), 0)
        while place < bytes.count {
            guard let (change, end) = Self.change(in: bytes, at: place) else {
                throw CrashRun.Fault(description: "\(path) has no record at \(place)")
            }
            changes.append(change)
            place = end
        }
        self.changes = changes
    }

    private static func change(in bytes: [UInt8], at place: Int) -> (Change, end: Int)? {
        let first = place + headerSize
        guard first <= bytes.count else { return nil }
        func word<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place + offset, as: type) }
        }
        let file = word(8, UInt64.self)
        let offset = word(16, Int.self)
        let second = first + word(24, Int.self)
        let end = second + word(32, Int.self)
        guard end <= bytes.count else { return nil }
        func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }
        let path = { text(first..<second) }
        switch word(0, UInt32.self) {
        case 1: return (.said(path()), end)
        case 2: return (.made(path: path(), file: file), end)
        case 3: return (.folderMade(path: path()), end)
        case 4:
            let isDurable = word(4, UInt32.self) != 0
            return (.written(file: file, offset: offset, bytes: first..<second, isDurable: isDurable), end)
        case 5: return (file == 0 ? .folderFlushed(path: path()) : .flushed(file: file), end)
        case 6: return (.resized(file: file, length: offset), end)
        case 7: return (.renamed(path: path(), to: text(second..<end)), end)
        case 8: return (.linked(path: path(), to: text(second..<end)), end)
        case 9: return (.removed(path: path()), end)
        default: return nil
        }
    }

    /// A file's bytes; nil when it cannot be read.
    static func read(_ path: String) -> [UInt8]? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var status = stat()
        guard fstat(fileno(file), &status) == 0 else { return nil }
        let count = Int(status.st_size)
        return [UInt8](unsafeUninitializedCapacity: count) { $1 = fread($0.baseAddress, 1, count, file) }
    }

    /// Makes a file of these bytes.
    static func write(_ bytes: [UInt8], to path: String) throws {
        guard let file = fopen(path, "w") else {
            throw CrashRun.Fault(description: "cannot make \(path): \(String(cString: strerror(errno)))")
        }
        let count = bytes.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
        guard fclose(file) == 0, count == bytes.count else { throw CrashRun.Fault(description: "cannot write \(path)") }
        chmod(path, 0o600)
    }
}
