import ArgumentParser

@main
struct CrashCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reelkv-crash",
        abstract: "Kills processes, fails their calls and tears their writes, and looks at what they leave.",
        discussion: "Run it through tools/crash, which builds it with the points at which processes can be killed.",
        subcommands: [KillCommand.self, FaultsCommand.self, TornCommand.self, WorkCommand.self])
}
