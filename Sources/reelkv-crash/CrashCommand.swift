import ArgumentParser

@main
struct CrashCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reelkv-crash",
        abstract:
            "Kills and stops processes, has them race, fails their calls and tears their writes, and looks at what they leave.",
        discussion: "Run it through tools/crash, which builds it with the points at which processes can be killed.",
        subcommands: [
            KillCommand.self, FaultsCommand.self, TornCommand.self, RacesCommand.self, StopsCommand.self, ModelCommand.self,
            WorkCommand.self, ObeyCommand.self,
        ])
}
