import ArgumentParser
import ReelKV
import Rendering

struct ForkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fork", abstract: "Begin a session with the tokens of a video or another session.",
        discussion: """
            The pages are shared, so a fork costs next to nothing.

            Example:
              reelkv fork session/alice alice-again --tokens 830
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Argument(help: SequenceArgument.help)
    var source: SequenceArgument

    @Argument(
        help: ArgumentHelp("The new session's name, with or without session/ before it.", valueName: "new-session"))
    var name: String

    @Option(help: ArgumentHelp("Only the first n tokens.", valueName: "n"))
    var tokens: Int?

    func run() throws {
        let store = try store.openToChange()
        let plain = name.hasPrefix("session/") ? String(name.dropFirst("session/".count)) : name
        try store.fork(source.name(of: tenant), to: plain, count: tokens)
        let info = try store.info(of: .session(plain, tenant: tenant.tenant))
        print("\(info.name): \(Format.count(info.tokenCount)) tokens, shared with \(source.name(of: tenant))")
    }
}
