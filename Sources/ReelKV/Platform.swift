#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The few things asked of the operating system, so that the rest of the engine needs no Foundation.
enum Platform {
    /// Seconds since 1970.
    static func unixSeconds() -> Int64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        #if REELKV_FAULTS
            return Int64(now.tv_sec) &+ FaultClock.offsetSeconds
        #else
            return Int64(now.tv_sec)
        #endif
    }

    /// The time so many seconds ago, as far as it can be told.
    static func unixSeconds(ago seconds: Int64) -> Int64 {
        let (past, isOverflow) = unixSeconds().subtractingReportingOverflow(seconds)
        return isOverflow ? .min : past
    }

    /// Seconds of a clock that is never set, so that it never goes back.
    static func uptimeSeconds() -> Int64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Int64(now.tv_sec)
    }

    static func exists(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0
    }

    /// Tells one file from another, whatever path leads to it.
    struct FileIdentity: Hashable {
        private var device: UInt64
        private var inode: UInt64

        /// nil when there is no such file.
        init?(path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            self.init(status)
        }

        /// nil when it is no open file.
        init?(descriptor: Int32) {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { return nil }
            self.init(status)
        }

        private init(_ status: stat) {
            device = UInt64(truncatingIfNeeded: status.st_dev)
            inode = UInt64(status.st_ino)
        }
    }

    static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Inside a store's folder nothing is a symbolic link: one would lead reads and writes to files that are somebody else's.
    ///
    /// - Throws: `StoreError.inputOutput` for one: what it stands for is out of reach, not lost.
    static func refuseLink(_ path: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return }
        throw StoreError(
            .inputOutput,
            "\(path) is a symbolic link, which is not followed: put the file or folder itself there, or link the whole store"
        )
    }

    /// Creates a folder that only its owner may enter, and its missing parents; one that is there already is fine. New ones are on
    /// the disk when this returns.
    static func makeDirectory(_ path: String) throws {
        if isDirectory(path) { return }
        let slash = path.lastIndex(of: "/")
        if let slash, slash > path.startIndex { try makeDirectory(String(path[..<slash])) }
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw StoreError.system("cannot create the folder \(path)")
        }
        synchronizeDirectory(slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? ".")
    }

    /// Makes the names in a folder durable, on file systems that can.
    static func synchronizeDirectory(_ path: String) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }

    /// The path of something that exists, absolute and free of symbolic links; nil when nothing is there.
    static func absolute(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Names in a folder, sorted, without `.` and `..`.
    static func list(_ path: String) throws -> [String] {
        guard let folder = opendir(path) else { throw StoreError.system("cannot list the folder \(path)") }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: $0.pointee)) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Length of a file in bytes; nil when there is none.
    static func fileSize(_ path: String) -> Int? {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : nil
    }

    /// Removes a file; one that is gone already is fine.
    static func remove(_ path: String) throws {
        guard unlink(path) == 0 || errno == ENOENT else { throw StoreError.system("cannot remove \(path)") }
    }

    static func rename(_ path: String, to other: String) throws {
        #if canImport(Glibc)
            let result = Glibc.rename(path, other)
        #elseif canImport(Musl)
            let result = Musl.rename(path, other)
        #else
            let result = Darwin.rename(path, other)
        #endif
        guard result == 0 else { throw StoreError.system("cannot rename \(path)") }
    }

    /// Bytes of all regular files below a folder, without following links.
    static func folderBytes(_ path: String) throws -> Int {
        var total = 0
        for name in try list(path) {
            var status = stat()
            let child = path + "/" + name
            guard lstat(child, &status) == 0 else { continue }  // removed meanwhile
            switch status.st_mode & S_IFMT {
            case S_IFREG: total += Int(status.st_size)
            case S_IFDIR: total += try folderBytes(child)
            default: break
            }
        }
        return total
    }

    /// Bytes that the files below a folder take on the file system, or are long, whichever is more.
    static func occupiedBytes(_ path: String) throws -> Int {
        var total = 0
        for name in try list(path) {
            var status = stat()
            let child = path + "/" + name
            guard lstat(child, &status) == 0 else { continue }  // removed meanwhile
            switch status.st_mode & S_IFMT {
            case S_IFREG: total += max(Int(status.st_size), Int(status.st_blocks) * 512)
            case S_IFDIR: total += try occupiedBytes(child)
            default: break
            }
        }
        return total
    }

    /// Bytes that the file system of a folder has free for this user.
    static func freeBytes(_ path: String) throws -> Int {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw StoreError.system("cannot ask for the free space of \(path)") }
        let blocks = UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize))
        return blocks.overflow ? .max : Int(clamping: blocks.partialValue)
    }

    /// Waits, or less where a signal comes in.
    static func sleep(seconds: Double) {
        var time = timespec()
        time.tv_sec = Int(seconds)
        time.tv_nsec = Int((seconds - seconds.rounded(.down)) * 1e9)
        nanosleep(&time, nil)
    }

    static var processorCount: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    static var processID: UInt32 { UInt32(bitPattern: getpid()) }

    /// When a process started, in the system's own unit; nil when there is no such process, 0 when the system does not tell.
    static func processStart(_ process: UInt32) -> UInt64? {
        guard let pid = pid_t(exactly: process), pid > 0, kill(pid, 0) == 0 || errno == EPERM else { return nil }
        guard let line = readLine("/proc/\(pid)/stat"), let close = line.lastIndex(of: ")") else { return 0 }
        // the 22nd field; the second, in parentheses, may hold spaces
        let fields = line[line.index(after: close)...].split(separator: " ")
        return fields.count > 19 ? UInt64(fields[19]) ?? 0 : 0
    }

    private static func readLine(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var buffer = [CChar](repeating: 0, count: 1024)
        guard fgets(&buffer, Int32(buffer.count), file) != nil else { return nil }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension StoreError {
    /// The operating system's last error, with what was tried.
    static func system(_ what: String, error: Int32 = errno) -> StoreError {
        let reason = String(cString: strerror(error))
        switch error {
        case ENOSPC, EDQUOT: return StoreError(.noSpace, "\(what): \(reason); free some space, nothing stored is lost")
        case EROFS: return StoreError(.readOnly, "\(what): \(reason)")
        case ELOOP:
            return StoreError(.inputOutput, "\(what): it is a symbolic link, which is not followed out of a store's folder")
        default: return StoreError(.inputOutput, "\(what): \(reason)")
        }
    }
}

extension Platform {
    /// Whether files can be made in a folder.
    static func isWritable(_ path: String) -> Bool { access(path, W_OK) == 0 }
}

extension Platform {
    /// At most so many bytes of a file, or of a pipe, that only its owner may use.
    ///
    /// - Throws: `StoreError` with the codes `notFound`, `invalidArgument` for a file that others may read or write, `inputOutput`.
    static func readSecret(_ path: String, byteCountMax: Int) throws -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { throw StoreError(.notFound, "there is no file \(path)") }
            throw StoreError.system("cannot open \(path)")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw StoreError.system("cannot look at \(path)") }
        guard status.st_mode & S_IFMT != S_IFREG || status.st_mode & 0o077 == 0 else {
            throw StoreError(
                .invalidArgument, "the key file \(path) is open to others than its owner: `chmod 600 \(path)` first")
        }
        var bytes = [UInt8](repeating: 0, count: byteCountMax)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + done, $0.count - done) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw StoreError.system("cannot read \(path)") }
            if count == 0 { break }
            done += count
        }
        return Array(bytes.prefix(done))
    }

    /// Makes a file that only its owner may use.
    ///
    /// - Throws: `StoreError` with the codes `alreadyExists`, `inputOutput`.
    static func writeNewSecret(_ path: String, _ bytes: [UInt8]) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            if errno == EEXIST { throw StoreError(.alreadyExists, "\(path) exists already: name a new file") }
            throw StoreError.system("cannot make \(path)")
        }
        defer { close(descriptor) }
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count == bytes.count, fsync(descriptor) == 0 else { throw StoreError.system("cannot write \(path)") }
    }

    /// A file's bytes; nil when there is none, or it is longer.
    static func readFile(_ path: String, byteCountMax: Int) throws -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw StoreError.system("cannot open \(path)")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size <= byteCountMax else {
            return nil
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + done, $0.count - done) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw StoreError.system("cannot read \(path)") }
            if count == 0 { return nil }
            done += count
        }
        return bytes
    }

    /// Writes a file whole, in place of what was there, for its owner alone: at any moment there is the one or the other.
    ///
    /// - Parameter unfinished: what it goes by until it is complete.
    static func writeFile(_ path: String, _ bytes: [UInt8], unfinished: String, isDurable: Bool) throws {
        let descriptor = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StoreError.system("cannot write \(unfinished)") }
        do {
            defer { close(descriptor) }
            // one that was left behind, or put there, may be open to others
            guard fchmod(descriptor, 0o600) == 0 else { throw StoreError.system("cannot keep others from \(unfinished)") }
            var done = 0
            while done < bytes.count {
                let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + done, $0.count - done) }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw StoreError.system("cannot write \(unfinished)") }
                done += count
            }
            if isDurable, fsync(descriptor) != 0 { throw StoreError.system("cannot flush \(unfinished)") }
            try rename(unfinished, to: path)
        } catch {
            unlink(unfinished)
            throw error
        }
        if isDurable, let slash = path.lastIndex(of: "/") { synchronizeDirectory(String(path[..<slash])) }
    }
}
