#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif
import Synchronization

/// The files that this process has open, and the environments they belong to.
///
/// A second open of one file would be a second view of one lock file; closing either drops the process's `fcntl` locks on it,
/// whereupon other processes take our readers for dead and overwrite pages they still read. So a file is open at most once, and
/// opening waits for a closing that is under way.
final class EnvironmentRegistry: @unchecked Sendable {
    static let shared = EnvironmentRegistry()

    private struct Entry {
        weak var environment: Environment?
        let path: String
        /// What the environment's files have in common, where it may have several.
        let folder: GenerationFolder.Key?
        /// Entries of the parent process mean nothing in a forked child.
        private let forks = forkGeneration.load(ordering: .relaxed)

        init(_ environment: Environment, path: String) {
            self.environment = environment
            self.path = path
            folder = environment.folder?.key
        }

        var isOfThisProcess: Bool { forks == forkGeneration.load(ordering: .relaxed) }
    }

    private let monitor = Monitor()
    private var entries: [FileIdentity: Entry] = [:]

    /// The lock is taken across a fork, so that the child does not inherit it held by a thread that it does not have.
    private init() {
        pthread_atfork(
            { EnvironmentRegistry.shared.monitor.lock() },
            { EnvironmentRegistry.shared.monitor.unlock() },
            {
                forkGeneration.add(1, ordering: .relaxed)
                EnvironmentRegistry.shared.monitor.unlock()
            })
    }

    /// The open environment of a file, or a new one.
    ///
    /// - Returns: the environment, and whether it was open before.
    func environment(
        of identity: FileIdentity, path: String, open: () throws -> Environment
    ) throws -> (environment: Environment, isShared: Bool) {
        monitor.lock()
        defer { monitor.unlock() }
        if let known = find({ $0 == identity && $1.isOfThisProcess }) { return (known, true) }
        try checkPath(path, of: identity)
        let environment = try open()
        entries[identity] = Entry(environment, path: path)
        return (environment, false)
    }

    /// The open environment of a folder's generations, whichever of them it has open, or a new one.
    ///
    /// - Parameter open: opens the newest; it asks `checkUnopened` about the file first.
    /// - Returns: the environment, and whether it was open before.
    func environment(
        of folder: GenerationFolder.Key,
        open: (_ checkUnopened: (FileIdentity, String) throws -> Void) throws -> (Environment, EnvironmentFile)
    ) throws -> (environment: Environment, isShared: Bool) {
        monitor.lock()
        defer { monitor.unlock() }
        if let known = find({ $1.folder == folder && $1.isOfThisProcess }) { return (known, true) }
        let (environment, file) = try open(checkUnopened)
        entries[file.identity] = Entry(environment, path: file.path)
        return (environment, false)
    }

    /// Opens a file for an environment that is open already.
    ///
    /// - Parameter open: as in ``environment(of:open:)``.
    func file(
        for environment: Environment, open: (_ checkUnopened: (FileIdentity, String) throws -> Void) throws -> EnvironmentFile
    ) throws -> EnvironmentFile {
        monitor.lock()
        defer { monitor.unlock() }
        let file = try open(checkUnopened)
        entries[file.identity] = Entry(environment, path: file.path)
        return file
    }

    /// The environment of an entry, after the closing of those that are on their way out.
    private func find(_ isSought: (FileIdentity, Entry) -> Bool) -> Environment? {
        while let entry = entries.first(where: isSought)?.value {
            if let environment = entry.environment { return environment }
            monitor.wait()
        }
        return nil
    }

    private func checkUnopened(_ identity: FileIdentity, _ path: String) throws {
        if let entry = entries[identity], entry.isOfThisProcess {
            throw LMDBError(.busy, "\(path) is open in this process as an environment of its own")
        }
        try checkPath(path, of: identity)
    }

    /// The lock file goes by the path, so a new file under an open environment's path would share its locks.
    private func checkPath(_ path: String, of identity: FileIdentity) throws {
        let isPathTaken = entries.contains { $1.path == path && $1.isOfThisProcess && $0 != identity }
        guard !isPathTaken else {
            throw LMDBError(.busy, "\(path) was replaced while an environment has the former file open; close that first")
        }
    }

    /// Runs `close` and forgets the file. To be called once per file, as its last use ends.
    func close(_ identity: FileIdentity, _ close: () -> Void) {
        monitor.lock()
        close()
        entries[identity] = nil
        monitor.broadcast()
        monitor.unlock()
    }
}
