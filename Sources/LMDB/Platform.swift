import CLMDB
import struct Synchronization.Atomic
import Locking

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A mutex and a condition variable, for state that some threads wait on.
///
/// `Synchronization.Mutex` has nothing to wait with, and the reader gate, the registry and their waiters need one lock for both.
package final class Monitor: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        #if canImport(Darwin)
            pthread_cond_init(condition, nil)
        #else
            // by a clock that is never set
            var attributes = pthread_condattr_t()
            pthread_condattr_init(&attributes)
            pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
            pthread_cond_init(condition, &attributes)
            pthread_condattr_destroy(&attributes)
        #endif
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    package func lock() { pthread_mutex_lock(mutex) }

    package func unlock() { pthread_mutex_unlock(mutex) }

    /// Gives the lock up until ``broadcast()``; may also return without one, so callers re-check their condition.
    package func wait() { pthread_cond_wait(condition, mutex) }

    /// Like ``wait()``, until a time at most.
    ///
    /// - Returns: false when that has come.
    package func wait(until end: ContinuousClock.Instant) -> Bool {
        let left = ContinuousClock.now.duration(to: end).components
        guard left.seconds > 0 || left.seconds == 0 && left.attoseconds > 0 else { return false }
        var time = timespec()
        #if canImport(Darwin)
            (time.tv_sec, time.tv_nsec) = (Int(left.seconds), Int(left.attoseconds / 1_000_000_000))
            pthread_cond_timedwait_relative_np(condition, mutex, &time)
        #else
            clock_gettime(CLOCK_MONOTONIC, &time)
            let nanoseconds = time.tv_nsec + Int(left.attoseconds / 1_000_000_000)
            time.tv_sec += Int(left.seconds) + nanoseconds / 1_000_000_000
            time.tv_nsec = nanoseconds % 1_000_000_000
            pthread_cond_timedwait(condition, mutex, &time)
        #endif
        return true
    }

    package func broadcast() { pthread_cond_broadcast(condition) }

    package func withLock<R>(_ body: () throws -> R) rethrows -> R {
        lock()
        defer { unlock() }
        return try body()
    }
}

/// A value behind a lock, and one that ThreadSanitizer sees: `Synchronization.Mutex` makes its own of system calls.
package final class Locked<Value>: @unchecked Sendable {
    private let monitor = Monitor()
    private var value: Value

    package init(_ value: Value) { self.value = value }

    package func withLock<R>(_ body: (inout Value) throws -> R) rethrows -> R {
        try monitor.withLock { try body(&value) }
    }
}

/// The identity of a running thread, cheap to read and to compare.
struct ThreadID: Equatable, Sendable {
    let bits: UInt

    static let none = ThreadID(bits: 0)

    static var current: ThreadID {
        #if canImport(Darwin)
            ThreadID(bits: UInt(bitPattern: pthread_self()))
        #else
            ThreadID(bits: UInt(pthread_self()))
        #endif
    }

    private init(bits: UInt) { self.bits = bits }
}

/// Counts the forks between this process and the first one, so that "was this opened before a fork?" costs one load
/// where `getpid()` costs a system call. The registry installs the handler that counts (`EnvironmentRegistry`).
let forkGeneration = Atomic<Int>(0)

/// How often this process and those it comes from were forked since the first environment was opened.
package func forkCount() -> Int { forkGeneration.load(ordering: .relaxed) }

/// A file by what it is and not by what it is called: links to one file have one identity.
struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64

    init(_ status: stat) {
        device = UInt64(truncatingIfNeeded: status.st_dev)
        inode = UInt64(truncatingIfNeeded: status.st_ino)
    }
}

/// The size of the machine's memory pages in bytes.
let systemPageSize = max(Int(sysconf(Int32(_SC_PAGESIZE))), 4096)

/// An open file descriptor that closes itself.
struct FileDescriptor: ~Copyable {
    let number: Int32

    init(path: String, flags: Int32, mode: UInt32 = 0) throws {
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw LMDBError(.invalidArgument, "a path must not be empty or hold a zero byte")
        }
        let opened = open(path, flags | O_CLOEXEC, mode_t(truncatingIfNeeded: mode))
        guard opened >= 0 else { throw LMDBError.fromErrno("opening \(path)") }
        number = opened
    }

    deinit { _ = close(number) }

    /// Leaves it to the caller to close it.
    consuming func release() -> Int32 {
        let number = number
        discard self
        return number
    }

    func status(_ path: String) throws -> stat {
        var status = stat()
        guard fstat(number, &status) == 0 else { throw LMDBError.fromErrno("looking at \(path)") }
        return status
    }

    func synchronize(_ path: String) throws {
        guard fsync(number) == 0 else { throw LMDBError.fromErrno("flushing \(path)") }
    }
}

/// Up to `count` bytes of a file from `offset`; fewer only at its end.
func readBytes(_ descriptor: Int32, count: Int, at offset: UInt64, path: String) throws -> [UInt8] {
    guard let start = off_t(exactly: offset) else { return [] }
    var filled = 0
    var failure: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        while filled < count {
            let got = pread(descriptor, buffer.baseAddress.map { $0 + filled }, count - filled, start + off_t(filled))
            if got < 0 && errno == EINTR { continue }
            if got < 0 { failure = errno }
            guard got > 0 else { break }
            filled += got
        }
        initialized = filled
    }
    guard failure == 0 else { throw LMDBError(LMDBError.Code(rawValue: failure), "reading \(path)") }
    return bytes
}

/// Makes sure that the first `count` bytes of a file have room on the device, without changing its size. Where the system
/// cannot do that, nothing happens.
///
/// - Throws: ``LMDBError/Code/noSpace`` or ``LMDBError/Code/quotaExceeded``.
func reserveSpace(_ descriptor: Int32, count: Int, path: String) throws {
    #if os(Linux)
        var result: Int32
        repeat { result = clmdb_reserve_space(descriptor, off_t(count)) } while result != 0 && errno == EINTR
        if result != 0 && (errno == ENOSPC || errno == EDQUOT) { throw LMDBError.fromErrno("making room for \(path)") }
    #endif
}

/// Shortens a file that is longer than `count` bytes.
func cutFile(_ descriptor: Int32, to count: Int) {
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_size > count else { return }
    _ = ftruncate(descriptor, off_t(count))
}

/// Makes the name of a new file durable: a file's own fsync says nothing about the directory that lists it.
func synchronizeDirectory(of path: String) throws {
    let end = path.lastIndex(of: "/")
    let directory = end.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let descriptor = try FileDescriptor(path: directory, flags: O_RDONLY | O_DIRECTORY)
    // Some file systems cannot flush a directory and say so; there is nothing more to do on those.
    if fsync(descriptor.number) != 0 && errno != EINVAL && errno != EROFS {
        throw LMDBError.fromErrno("flushing the directory \(directory)")
    }
}
