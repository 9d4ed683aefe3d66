#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An exclusive lock on a file that ends with the process, however it ends.
///
/// Whoever has the lock of a path alone may set the file up or remove it.
final class FileLock: Sendable {
    private let descriptor: Int32
    private let process = Platform.processID

    /// Takes the lock. A file that is missing is made, empty: so there is a lock also on what is yet to be.
    ///
    /// - Returns: nil when another owner holds the lock, in this process or any other.
    init?(path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StoreError.system("cannot open \(path)") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let error = errno
            close(descriptor)
            if error == EWOULDBLOCK { return nil }
            throw StoreError.system("cannot lock \(path)", error: error)
        }
        // Its last owner may have removed the file after it was opened here. What is locked then is no longer at the path.
        guard let locked = Platform.FileIdentity(descriptor: descriptor), locked == Platform.FileIdentity(path: path) else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
    }

    /// Waits for the lock of a file that is never removed.
    init(waitingFor path: String) throws {
        let descriptor = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StoreError.system("cannot open \(path)") }
        while flock(descriptor, LOCK_EX) != 0 {
            let error = errno
            if error == EINTR { continue }
            close(descriptor)
            throw StoreError.system("cannot lock \(path)", error: error)
        }
        self.descriptor = descriptor
    }

    /// A child that was forked meanwhile holds the file open too, until it runs another program: closing alone would leave it locked.
    deinit {
        if process == Platform.processID { flock(descriptor, LOCK_UN) }
        close(descriptor)
    }
}
