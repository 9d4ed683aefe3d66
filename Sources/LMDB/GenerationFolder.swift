#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The folder of an environment with successors, and which generations lie in it.
///
/// It is kept open: names are looked up in the folder itself, which costs less than its path and cannot lead to another folder that
/// took its place.
final class GenerationFolder: Sendable {
    /// What makes two environments one: the folder, and the name of generation 1 in it.
    struct Key: Hashable {
        let folder: FileIdentity
        let first: String
    }

    /// Absolute and free of symbolic links.
    let path: String
    let names: FileGenerations
    let key: Key
    private let descriptor: FileDescriptor

    /// - Parameter path: of generation 1, which need not exist.
    init(of path: String) throws {
        let slash = path.lastIndex(of: "/")
        let name = String(slash.map { path[path.index(after: $0)...] } ?? path[...])
        guard !name.isEmpty, name != ".", name != "..", !name.utf8.contains(0) else {
            throw LMDBError(.invalidArgument, "\"\(path)\" names no file")
        }
        let folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        descriptor = try FileDescriptor(path: folder, flags: O_RDONLY | O_DIRECTORY)
        guard let resolved = realpath(folder, nil) else { throw LMDBError.fromErrno("resolving \(folder)") }
        defer { free(resolved) }
        self.path = String(cString: resolved)
        names = FileGenerations(first: name)
        key = Key(folder: FileIdentity(try descriptor.status(folder)), first: name)
    }

    func path(of name: String) -> String { path == "/" ? "/\(name)" : "\(path)/\(name)" }

    /// The file of that name; nil when there is none.
    func identity(of name: String) throws -> FileIdentity? {
        var status = stat()
        guard fstatat(descriptor.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
            if errno == ENOENT { return nil }
            throw LMDBError.fromErrno("looking at \(path(of: name))")
        }
        guard status.st_mode & S_IFMT != S_IFLNK else {
            throw LMDBError(.invalidArgument, "\(path(of: name)) is a symbolic link; name the file itself")
        }
        return FileIdentity(status)
    }

    /// The current generation; nil when there is none yet.
    func newest() throws -> Int? {
        // A name that comes or goes while a folder is read may be missed, and a succession does both. So it is read again
        // until nothing changes.
        var found = names.newest(among: try list())
        while true {
            let again = names.newest(among: try list())
            if again == found { return found }
            found = again
        }
    }

    private func list() throws -> [String] {
        // a place in the folder of its own, for threads that read it at the same time
        let own = openat(descriptor.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard own >= 0, let stream = fdopendir(own) else { throw LMDBError.fromErrno("listing \(path)") }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return names
    }

    // MARK: - Changing

    func rename(_ name: String, to other: String) throws {
        guard renameat(descriptor.number, name, descriptor.number, other) == 0 else {
            throw LMDBError.fromErrno("renaming \(path(of: name)) to \(other)")
        }
    }

    func remove(_ name: String) throws {
        guard unlinkat(descriptor.number, name, 0) == 0 || errno == ENOENT else {
            throw LMDBError.fromErrno("removing \(path(of: name))")
        }
    }

    /// The caller has the current generation's write lock, so nobody is at work on a copy.
    func removeObsolete(beside current: Int) throws {
        for name in names.obsolete(beside: current, among: try list()) { try remove(name) }
    }

    /// The caller has made `current` the current generation, and need not have its write lock.
    func removePredecessors(of current: Int) throws {
        for name in names.predecessors(of: current, among: try list()) { try remove(name) }
    }

    /// Makes the names in the folder durable.
    func synchronize() throws { try synchronizeDirectory(of: path(of: names.first)) }
}
