#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A folder of this process, in memory where the system has such a place; gone when the process ends normally.
struct ScratchFolder {
    static let shared = ScratchFolder()

    let path: String

    private init() {
        let parent = getenv("TMPDIR").map { String(cString: $0) } ?? (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp")
        var template = Array("\(parent)/reelkv-fuzz-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { fatalError("no folder can be made in \(parent)") }
        path = String(cString: made)
        atexit { ScratchFolder.shared.remove() }
    }

    private func remove() { Self.removeTree(path) }

    /// Runs `body` with a file of these bytes.
    func withFile(_ name: String, _ bytes: UnsafeRawBufferPointer, _ body: (String) throws -> Void) throws {
        let file = path + "/" + name
        Self.write(bytes, to: file)
        defer { unlink(file) }
        try body(file)
    }

    /// Runs `body` with a folder of its own.
    func withFolder(_ name: String, _ body: (String) throws -> Void) throws {
        let folder = path + "/" + name
        mkdir(folder, 0o700)
        defer { Self.removeTree(folder) }
        try body(folder)
    }

    static func write(_ bytes: UnsafeRawBufferPointer, to path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard descriptor >= 0 else { fatalError("cannot write \(path)") }
        defer { close(descriptor) }
        var rest = bytes
        while !rest.isEmpty {
            let count = posixWrite(descriptor, rest.baseAddress, rest.count)
            guard count > 0 else { fatalError("cannot write \(path)") }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    static func read(_ path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { fatalError("cannot read \(path)") }
        defer { close(descriptor) }
        var status = stat()
        fstat(descriptor, &status)
        return [UInt8](unsafeUninitializedCapacity: Int(status.st_size)) { buffer, count in
            count = max(0, pread(descriptor, buffer.baseAddress, buffer.count, 0))
        }
    }

    static func names(_ path: String) -> [String] {
        guard let folder = opendir(path) else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    private static func removeTree(_ path: String) {
        if isFolder(path) { for name in names(path) { removeTree(path + "/" + name) } }
        if unlink(path) != 0 { rmdir(path) }
    }
}

private func posixWrite(_ descriptor: CInt, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}
