import ArgumentParser
import ReelKV

struct ModelRemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove a model.",
        discussion: """
            Example:
              reelkv model rm smollm2 --force
            """)

    @OptionGroup var store: StoreOption

    @Argument(help: "The model.")
    var name: String

    @Flag(help: "Delete its videos and sessions, of every tenant, with it.")
    var force = false

    func run() throws {
        try Removal.model(name, force: force).run(in: try store.openToChange())
    }
}
