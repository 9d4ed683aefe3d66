import ArgumentParser
import ReelKVCommands

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A command line, parsed and, where it names no place outside of its folder, run on a copy of a small store. The current folder is
/// that folder meanwhile.
func fuzzCommandLine(_ bytes: UnsafeRawBufferPointer) throws {
    var input = FuzzInput(bytes)
    // A few commands after each other: what one leaves, the next one finds.
    let lines = (0..<input.number(in: 1...3)).map { _ in input.commandLine() }
    let file = Array(input.remainder())
    try TemplateStore.shared.withCopy { folder in
        file.withUnsafeBytes { ScratchFolder.write($0, to: folder + "/file") }
        let before = getcwd(nil, 0)
        defer { free(before) }
        guard chdir(folder) == 0 else { fatalError("cannot go to \(folder)") }
        defer { if let before { chdir(before) } }
        setenv("REELKV_STORE", "store", 1)
        for line in lines { try run(line) }
    }
}

private func run(_ arguments: [String]) throws {
    do {
        var command = try ReelKVCommand.parseAsRoot(arguments)
        try command.run()
    } catch {
        // Whatever it is, the program would say it.
        let message = ReelKVCommand.fullMessage(for: error)
        let isSaid = !message.isEmpty || error is ExitCode || ReelKVCommand.exitCode(for: error) == .success
        try require(isSaid, "\(arguments) fails without a word")
    }
    fflush(nil)
}

extension FuzzInput {
    fileprivate mutating func commandLine() -> [String] {
        (0..<number(in: 0...9)).map { _ in word() }
    }

    /// A word that commands know, or any other one; none that leads out of the current folder.
    private mutating func word() -> String {
        switch next(UInt8.self) {
        case 0..<200: return pick(CommandWords.all)
        case 200..<224: return pick(CommandWords.all) + "=" + pick(CommandWords.all)
        case 224..<236: return String(size(upTo: 100))
        default:
            let text = self.text(upTo: 30)
            return text.contains("/") || text.contains("..") ? "x" : text
        }
    }
}

private enum CommandWords {
    static let all = commands + options + values

    private static let commands = [
        "init", "model", "add", "list", "show", "remove", "import", "export", "compare", "ls", "rm", "match", "stats", "verify",
        "fork",
        "truncate", "quota", "set", "pin", "unpin", "evict", "compact", "help", "scrub", "tenant", "new-key", "rekey",
    ]

    private static let options = [
        "--store", "--json", "--model", "--profile", "--video", "--session", "--layers", "--tokens", "--seconds", "--layer",
        "--key",
        "--value", "--spec", "--fingerprint", "--tenant", "--bytes", "--keep-free", "--ttl", "--demote-to", "--demote-after",
        "--to",
        "--dry-run", "--max-bytes-per-second", "--max-key-error", "--max-value-error", "--policy", "--all", "--force", "--quiet",
        "--help", "--version", "--quarantine", "--skip-pages", "--relaxed", "--building", "--head", "--png", "--output", "-q",
        "-h", "-o",
        "--", "--repair", "--once", "--key-file", "--new-key-file", "--replace", "--dtype", "--generate-completion-script",
    ]

    private static let values = [
        "store", "new", "file", "out.safetensors", "out.png", "tiny", "wide", "video/v", "session/s", "session/t", "v", "s",
        "default", "acme",
        "exact", "vidkv-1.5-1.58", "int4", "0:1", "0:32", "1:0", "0", "1", "32", "-1", "1e308", "nan", "inf", "64KiB", "1GiB",
        "10%", "30d", "1s",
        "lru", "adaptive", "bash", "zsh", "fish", "float16", "", "9223372036854775807", "18446744073709551616",
        "0:9223372036854775807",
    ]
}
