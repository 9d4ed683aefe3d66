#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A file that has its room on the disk, but no name until `publish()`.
///
/// Where the file system can (`O_TMPFILE`), the file has no name at all, so that nothing remains even of a process that is
/// killed. Elsewhere it has a hidden one in the same folder, removed with the object.
final class TemporaryFile {
    /// A system call that failed.
    struct Failure: Error {
        let code: CInt
        let action: String
    }

    let descriptor: CInt
    private let destination: String
    private var hiddenPath: String?

    /// Creates a file of `byteCount` zeros for `destination`, all of them allocated on the disk.
    init(for destination: String, byteCount: Int) throws(Failure) {
        self.destination = destination
        // What `publish()` could not replace must be an error now, not after all has been written.
        var status = stat()
        let isFolder = stat(destination, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
        guard !isFolder, !destination.isEmpty, destination.last != "/" else {
            throw Failure(code: isFolder ? EISDIR : ENOENT, action: "the path names no file")
        }
        let folder = parentFolder(of: destination)
        #if os(Linux)
            // The macro of <fcntl.h> is not one that Swift imports: __O_TMPFILE | O_DIRECTORY.
            let unnamed = open(folder, 0o20000000 | O_DIRECTORY | O_RDWR | O_CLOEXEC, mode_t(0o600))
        #else
            let unnamed: CInt = -1
        #endif
        if unnamed >= 0 {
            descriptor = unnamed
        } else {
            let path = hiddenName(for: destination)
            let named = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(0o600))
            guard named >= 0 else { throw Failure(code: errno, action: "a file cannot be created in '\(folder)'") }
            descriptor = named
            hiddenPath = path
        }
        try allocate(byteCount)
    }

    deinit {
        close(descriptor)
        if let hiddenPath { unlink(hiddenPath) }
    }

    /// Takes `byteCount` bytes from the disk now, so that a full disk is an error here and no `SIGBUS` in a mapping later.
    private func allocate(_ byteCount: Int) throws(Failure) {
        guard byteCount > 0 else { return }
        #if canImport(Darwin)
            var request = fstore_t(
                fst_flags: UInt32(F_ALLOCATEALL), fst_posmode: F_PEOFPOSMODE, fst_offset: 0, fst_length: off_t(byteCount),
                fst_bytesalloc: 0)
            guard fcntl(descriptor, F_PREALLOCATE, &request) == 0, ftruncate(descriptor, off_t(byteCount)) == 0 else {
                throw Failure(code: errno, action: "\(byteCount) bytes cannot be allocated")
            }
        #else
            var code = posix_fallocate(descriptor, 0, off_t(byteCount))
            while code == EINTR { code = posix_fallocate(descriptor, 0, off_t(byteCount)) }
            guard code == 0 else { throw Failure(code: code, action: "\(byteCount) bytes cannot be allocated") }
        #endif
    }

    /// Writes all of `bytes` at `offset`.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Failure) {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Failure(code: errno, action: "\(rest.count) bytes cannot be written") }
            done += count
        }
    }

    /// Puts the file in the place of `destination`, whole and on the disk.
    func publish() throws(Failure) {
        guard fsync(descriptor) == 0 else { throw Failure(code: errno, action: "the data cannot be brought to the disk") }
        let path: String
        if let hiddenPath {
            path = hiddenPath
        } else {
            path = hiddenName(for: destination)
            try link(to: path)
            hiddenPath = path
        }
        guard rename(path, destination) == 0 else {
            throw Failure(code: errno, action: "the finished file cannot be moved to its place")
        }
        hiddenPath = nil
        let folder = open(parentFolder(of: destination), O_RDONLY | O_CLOEXEC)
        guard folder >= 0 else { return }
        // Some file systems cannot sync a folder; the file itself is safe by now.
        fsync(folder)
        close(folder)
    }

    /// Gives the unnamed file a name. A link cannot replace a file, so this is the step before the rename.
    private func link(to path: String) throws(Failure) {
        #if os(Linux)
            guard linkat(AT_FDCWD, "/proc/self/fd/\(descriptor)", AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 else {
                throw Failure(code: errno, action: "the finished file cannot be given a name")
            }
        #endif
    }
}

private func parentFolder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
}

/// A name beside `path` that nothing else has. It does not contain the name itself, which may be as long as names can be.
private func hiddenName(for path: String) -> String {
    parentFolder(of: path) + "/.safetensors-" + String(UInt64.random(in: .min ... .max), radix: 36) + ".tmp"
}
