import KVCodec

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The file in which a process writes down what it has leased, under the lock that says that the process lives.
///
/// Knows the file's form and whose it is. Does not know who in the process wants which lease.
final class LeaseFile: Sendable {
    let path: String
    private let lock: FileLock
    private let descriptor: Int32
    private let process: UInt32

    static let magic: UInt64 = 0x0A45_534C_564B_5289
    static let formatVersion: UInt16 = 1
    /// Slots of a file, the header's place among them: no file is read beyond.
    static let slotsMax = 1 << 20
    /// Names tried for one process: others with its id, in other containers, and its own before it opened the store anew.
    private static let namesMax = 64

    /// Makes this process's file in a folder, which is made too when it is missing.
    init(in folder: String) throws {
        try Platform.makeDirectory(folder)
        process = Platform.processID
        let started = Platform.processStart(process) ?? 0
        var taken: (path: String, lock: FileLock)?
        for number in 0..<Self.namesMax where taken == nil {
            let path = "\(folder)/\(process)-\(started)" + (number == 0 ? "" : "-\(number)")
            taken = try FileLock(path: path).map { (path, $0) }
        }
        guard let taken else {
            throw StoreError(.conflict, "other processes took every name for a lease file in \(folder): remove what is old there")
        }
        (path, lock) = taken
        // only the lock's owner removes the file, so this is the one that is locked
        descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { throw StoreError.system("cannot open \(path)") }
        var bytes: [UInt8] = []
        bytes.append(
            LeaseHeader(
                magic: Self.magic, formatVersion: Self.formatVersion, processId: process, processStarted: started,
                openedSeconds: Platform.unixSeconds()))
        do {
            try cut(toSlots: 0)
            try put(bytes, slot: 0)
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        // a forked child's copy is still its parent's file
        if Platform.processID == process { unlink(path) }
        close(descriptor)
    }

    /// Writes a slot, by one call.
    func write(_ record: LeaseRecord, slot: Int) throws {
        var record = record
        record.checksum = record.expectedChecksum
        var bytes: [UInt8] = []
        bytes.append(record)
        try put(bytes, slot: slot)
    }

    func clear(slot: Int) throws { try put(Array(repeating: 0, count: LeaseRecord.byteCount), slot: slot) }

    /// Gives the space of slots from `count` on back.
    func cut(toSlots count: Int) throws {
        guard ftruncate(descriptor, off_t(count * LeaseRecord.byteCount)) == 0 else {
            throw StoreError.system("cannot shorten \(path)")
        }
    }

    private func put(_ bytes: [UInt8], slot: Int) throws {
        let written = pwrite(descriptor, bytes, bytes.count, off_t(slot * LeaseRecord.byteCount))
        guard written == bytes.count else {
            throw StoreError.system("cannot write \(path)", error: written < 0 ? errno : ENOSPC)
        }
    }
}

// MARK: - Reading other processes' files

extension LeaseFile {
    /// A file as it was read.
    struct Contents {
        /// nil when the file was just being made.
        var header: LeaseHeader?
        var leases: [LeaseRecord] = []
        /// Hashes in slots that were just being written.
        var torn: [Digest] = []
    }

    /// What the file at `path` holds; nil when its owner has ended, or it is gone.
    static func read(_ path: String) throws -> Contents? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw StoreError.system("cannot open \(path)")
        }
        defer { close(descriptor) }
        // as long as the owner lives, it holds the exclusive lock
        if flock(descriptor, LOCK_SH | LOCK_NB) == 0 { return nil }
        guard errno == EWOULDBLOCK else { throw StoreError.system("cannot lock \(path)") }
        return Contents(try bytes(of: descriptor, path))
    }

    private static func bytes(of descriptor: Int32, _ path: String) throws -> [UInt8] {
        let limit = slotsMax * LeaseRecord.byteCount
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while bytes.count < limit {
            let count = pread(descriptor, &chunk, chunk.count, off_t(bytes.count))
            guard count >= 0 else { throw StoreError.system("cannot read \(path)") }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        return bytes
    }

    /// Removes the file of an owner that has ended; one that somebody holds after all stays.
    static func removeLapsed(_ path: String) throws {
        guard let lock = try FileLock(path: path) else { return }
        defer { withExtendedLifetime(lock) {} }
        try Platform.remove(path)
    }

    /// Whether a name in the folder is one of a lease file: numbers with `-` between.
    static func isName(_ name: String) -> Bool {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        return (2...3).contains(parts.count)
            && parts.allSatisfy { !$0.isEmpty && $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }
    }
}

extension LeaseFile.Contents {
    init(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            header = LeaseHeader(at: 0, of: bytes).flatMap { $0.magic == LeaseFile.magic ? $0 : nil }
            for offset in stride(from: LeaseHeader.byteCount, to: bytes.count, by: LeaseRecord.byteCount) {
                guard let record = LeaseRecord(at: offset, of: bytes) else { return }
                let slot = bytes[offset..<offset + LeaseRecord.byteCount]
                if slot.allSatisfy({ $0 == 0 }) { continue }
                if record.checksum == record.expectedChecksum { leases.append(record) } else { torn.append(record.chainHash) }
            }
        }
    }
}

extension LeaseRecord {
    fileprivate var expectedChecksum: UInt64 {
        var bytes: [UInt8] = []
        bytes.append(self)
        return bytes.withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer(rebasing: $0.dropLast(8))) }
    }
}
