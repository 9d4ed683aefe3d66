import ArgumentParser
import ReelKV

struct RemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Delete a video, session, model or tenant.",
        discussion: """
            Pages go when nothing refers to them any more; their space comes back a volume at a time.

            Examples:
              reelkv rm session/alice
              reelkv rm model/smollm2 --force
              reelkv rm tenant/acme
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Argument(help: ArgumentHelp("video/NAME, session/NAME, model/NAME or tenant/NAME.", valueName: "what"))
    var target: String

    @Flag(help: "Delete a model together with its videos and sessions.")
    var force = false

    func run() throws {
        try removal().run(in: try store.openToChange())
    }

    func validate() throws {
        _ = try removal()
    }

    private func removal() throws -> Removal {
        let parts = target.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        if parts.count == 2, !parts[1].isEmpty {
            if let name = SequenceName(target, tenant: tenant.tenant) { return .sequence(name) }
            if parts[0] == "model" { return .model(parts[1], force: force) }
            if parts[0] == "tenant" { return .tenant(parts[1]) }
        }
        throw ValidationError("'\(target)' names nothing to delete: give video/NAME, session/NAME, model/NAME or tenant/NAME.")
    }
}
