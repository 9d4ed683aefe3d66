package import ArgumentParser
import ReelKV

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// The program `reelkv`.
package struct ReelKVCommand: ParsableCommand {
    package init() {}

    package static let configuration = CommandConfiguration(
        commandName: "reelkv",
        abstract: "A store for the KV caches of video language models.",
        discussion: """
            A store is one folder. Name it with --store DIR, or once for all commands with the environment variable \
            REELKV_STORE. Videos and sessions are named video/NAME and session/NAME.

            Example:
              export REELKV_STORE=~/kv
              reelkv init
              reelkv model add qwen --spec qwen.json
              reelkv import lobby.safetensors --model qwen --profile vidkv-2-2
              reelkv stats

            Errors go to standard error. The exit status is 1 for a command that failed and 64 for one that was not understood.
            """,
        version: "\(libraryVersion)",
        groupedSubcommands: [
            CommandGroup(name: "Setting up", subcommands: [InitCommand.self, ModelCommand.self, TenantCommand.self]),
            CommandGroup(
                name: "In and out",
                subcommands: [ImportCommand.self, ExportCommand.self, CompareCommand.self]),
            CommandGroup(
                name: "Looking",
                subcommands: [ListCommand.self, ShowCommand.self, MatchCommand.self, StatsCommand.self]),
            CommandGroup(name: "Keeping", subcommands: [VerifyCommand.self, ScrubCommand.self]),
            CommandGroup(
                name: "Changing", subcommands: [ForkCommand.self, TruncateCommand.self, RemoveCommand.self]),
            CommandGroup(
                name: "Space",
                subcommands: [
                    QuotaCommand.self, PinCommand.self, UnpinCommand.self, EvictCommand.self, CompactCommand.self,
                ]),
        ])

    /// Runs the command that the arguments name. What is thrown from it is an error of the command, not of its arguments.
    package static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            exit(reporting: error)
        }
    }

    private static func exit(reporting error: any Error) -> Never {
        let code = exitCode(for: error)
        if code == .success || error is ExitCode { exit(withError: error) }
        if code == .validationFailure {
            // the parser's message with its usage lines, under the name that all our errors have
            let message = fullMessage(for: error)
            let plain = message.hasPrefix("Error: ") ? String(message.dropFirst("Error: ".count)) : message
            StandardError.write("reelkv: error: \(plain)\n")
            exit(withError: code)
        }
        StandardError.write("reelkv: error: \(singleLine("\(error)"))\n")
        exit(withError: ExitCode.failure)
    }
}
