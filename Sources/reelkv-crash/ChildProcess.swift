#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Another process of this program, run to its end.
struct ChildProcess {
    let output: String
    private let status: CInt

    /// What ended it; 0 where it ended by itself.
    var signal: CInt { status & 0x7F }
    var ending: String { signal != 0 ? "signal \(signal)" : "status \(status >> 8 & 0xFF)" }

    /// - Parameter environment: beside this process's own.
    init(_ arguments: [String], environment: [String: String] = [:]) throws {
        var ends: [CInt] = [0, 0]
        guard pipe(&ends) == 0 else { throw CrashRun.Fault(description: "no pipe: \(String(cString: strerror(errno)))") }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_addclose(&actions, ends[0])
        posix_spawn_file_actions_addclose(&actions, ends[1])
        var words: [UnsafeMutablePointer<CChar>?] = ([CommandLine.arguments[0]] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var settings: [UnsafeMutablePointer<CChar>?] = []
        var place = environ
        while let setting = place.pointee {
            settings.append(strdup(setting))
            place += 1
        }
        settings += environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for setting in settings { free(setting) } }
        var process = pid_t()
        let failure = posix_spawnp(&process, CommandLine.arguments[0], &actions, nil, &words, &settings)
        close(ends[1])
        defer { close(ends[0]) }
        guard failure == 0 else { throw CrashRun.Fault(description: "no process: \(String(cString: strerror(failure)))") }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(ends[0], &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        output = String(decoding: bytes, as: UTF8.self)
        var status: CInt = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        self.status = status
    }
}
