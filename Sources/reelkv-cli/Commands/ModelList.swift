import ArgumentParser
import ReelKV
import Rendering

struct ModelListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the models.",
        discussion: """
            Example:
              reelkv model ls --json
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var output: OutputOption

    func run() throws {
        let models = try store.openToLook().models()
        try output.write(models.map(ModelReport.init)) { reports in
            reports.isEmpty ? "no models: add one with `reelkv model add`\n" : ModelReport.table(reports)
        }
    }
}
