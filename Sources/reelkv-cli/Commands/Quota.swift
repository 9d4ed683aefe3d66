import ArgumentParser

struct QuotaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quota", abstract: "Show or set how much the store may hold, and what goes first.",
        discussion: """
            Examples:
              reelkv quota
              reelkv quota --tenant acme
              reelkv quota set --bytes 50GiB --keep-free 10GiB --ttl 7d
            """,
        subcommands: [QuotaShowCommand.self, QuotaSetCommand.self], defaultSubcommand: QuotaShowCommand.self)
}
