#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Another process of this program.
final class ChildProcess {
    enum State { case running, stopped, ended }

    private let process: pid_t
    /// A file without a name: what was written to it outlives the process, and nobody waits for a reader. Of a process that is told what to
    /// do, a pipe.
    private let outputFile: CInt
    /// The pipe by which it is told; -1 where it is not.
    private var inputPipe: CInt = -1
    private var answers: [UInt8] = []
    private(set) var state = State.running
    private var status: CInt = 0

    /// What ended it; 0 where it ended by itself.
    var signal: CInt { status & 0x7F }
    var ending: String { signal != 0 ? "signal \(signal)" : "status \(status >> 8 & 0xFF)" }

    /// Starts it.
    ///
    /// - Parameters:
    ///   - environment: beside this process's own.
    ///   - isTold: whether it is told what to do, and answers, line by line.
    init(_ arguments: [String], environment: [String: String] = [:], isTold: Bool = false) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var theirs: [CInt] = []
        defer { for file in theirs { close(file) } }
        if isTold {
            let (input, output) = (try Self.pipe(), try Self.pipe())
            (inputPipe, outputFile) = (input.write, output.read)
            theirs = [input.read, output.write]
            posix_spawn_file_actions_adddup2(&actions, input.read, STDIN_FILENO)
            posix_spawn_file_actions_adddup2(&actions, output.write, STDOUT_FILENO)
        } else {
            outputFile = try Self.temporaryFile()
            posix_spawn_file_actions_adddup2(&actions, outputFile, STDOUT_FILENO)
        }
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
        self.process = process
        guard failure == 0 else {
            state = .ended
            throw CrashRun.Fault(description: "no process: \(String(cString: strerror(failure)))")
        }
    }

    deinit {
        if state != .ended {
            send(SIGKILL)
            wait()
        }
        endInput()
        close(outputFile)
    }

    /// One that has ended.
    static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> ChildProcess {
        let child = try ChildProcess(arguments, environment: environment)
        child.wait()
        return child
    }

    func send(_ signal: CInt) { kill(process, signal) }

    /// Lets it go on where it was stopped.
    func goOn() {
        state = .running
        send(SIGCONT)
    }

    func wait() { while state != .ended { look(0) } }

    /// Waits until it is stopped or has ended, for so long.
    @discardableResult
    func wait(seconds: Double) -> State {
        let clock = ContinuousClock()
        let end = clock.now + .seconds(seconds)
        while state == .running {
            look(WNOHANG | WUNTRACED)
            if state != .running || clock.now > end { break }
            usleep(500)
        }
        return state
    }

    private func look(_ options: CInt) {
        var status: CInt = 0
        let found = waitpid(process, &status, options)
        guard found == process else { return }
        if status & 0xFF == 0x7F {
            state = .stopped
        } else {
            (state, self.status) = (.ended, status)
        }
    }

    /// The lines that it has written so far; not one that was cut.
    var lines: [Substring] {
        let text = output
        guard let end = text.lastIndex(of: "\n") else { return [] }
        return text[..<end].split(separator: "\n")
    }

    private var output: String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = pread(outputFile, &chunk, chunk.count, off_t(bytes.count))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    // MARK: - Orders

    func tell(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { write(inputPipe, $0.baseAddress.map { $0 + done }, $0.count - done) }
            // it has ended: no answer will come
            guard count > 0 else { return }
            done += count
        }
    }

    func endInput() {
        if inputPipe >= 0 { close(inputPipe) }
        inputPipe = -1
    }

    /// - Returns: the next line; nil where it has ended, or takes too long.
    func answer() -> String? {
        while true {
            if let end = answers.firstIndex(of: UInt8(ascii: "\n")) {
                defer { answers.removeSubrange(...end) }
                return String(decoding: answers[..<end], as: UTF8.self)
            }
            var waiting = pollfd(fd: outputFile, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, CInt(Self.patience * 1000)) > 0 else { return nil }
            var chunk = [UInt8](repeating: 0, count: 1 << 14)
            let count = read(outputFile, &chunk, chunk.count)
            guard count > 0 else { return nil }
            answers += chunk[..<count]
        }
    }

    private static func pipe() throws -> (read: CInt, write: CInt) {
        var ends: [CInt] = [0, 0]
        guard makePipe(&ends) == 0 else { throw CrashRun.Fault(description: "no pipe: \(String(cString: strerror(errno)))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    private static func temporaryFile() throws -> CInt {
        var template = Array("/tmp/reelkv-crash-output-XXXXXX".utf8CString)
        let file = mkstemp(&template)
        guard file >= 0 else { throw CrashRun.Fault(description: "no file in /tmp: \(String(cString: strerror(errno)))") }
        unlink(template)
        _ = fcntl(file, F_SETFD, FD_CLOEXEC)
        return file
    }
}

private func makePipe(_ ends: UnsafeMutablePointer<CInt>) -> CInt { pipe(ends) }
