#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif
import Synchronization

/// The environments that this process has open, by file.
///
/// A second open of one file would be a second view of one lock file; closing either drops the process's `fcntl` locks on it,
/// whereupon other processes take our readers for dead and overwrite pages they still read. So a file is open at most once, and
/// opening waits for a closing that is under way.
final class EnvironmentRegistry: @unchecked Sendable {
    static let shared = EnvironmentRegistry()

    private struct Entry {
        weak var environment: Environment?
        let path: String
        /// Entries of the parent process mean nothing in a forked child.
        let generation: Int
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
        let generation = forkGeneration.load(ordering: .relaxed)
        while let entry = entries[identity], entry.generation == generation {
            if let environment = entry.environment { return (environment, true) }
            monitor.wait()
        }
        // The lock file goes by the path, so a new file under an open environment's path would share its locks.
        let isPathTaken = entries.contains { $1.path == path && $1.generation == generation && $0 != identity }
        guard !isPathTaken else {
            throw LMDBError(.busy, "\(path) was replaced while an environment has the former file open; close that first")
        }
        let environment = try open()
        entries[identity] = Entry(environment: environment, path: path, generation: generation)
        return (environment, false)
    }

    /// Runs `close` and forgets the file. To be called once per environment, as it ends.
    func close(_ identity: FileIdentity, _ close: () -> Void) {
        monitor.lock()
        close()
        entries[identity] = nil
        monitor.broadcast()
        monitor.unlock()
    }
}
