import ArgumentParser
import ReelKV
import Rendering

struct TruncateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "truncate", abstract: "Drop a session's last tokens.",
        discussion: """
            Example, to take back a turn that began at token 880:
              reelkv truncate session/alice 880
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Argument(help: ArgumentHelp("session/NAME.", valueName: "name"))
    var session: SequenceArgument

    @Argument(help: "How many tokens to keep.")
    var tokens: Int

    func validate() throws {
        if session.kind != .session {
            throw ValidationError("A video cannot be truncated: fork it with --tokens, or import it anew.")
        }
    }

    func run() throws {
        let store = try store.openToChange()
        try store.truncate(session: session.name, tenant: tenant.tenant, to: tokens)
        print("\(session.name(of: tenant)): \(Format.count(tokens)) tokens")
    }
}
