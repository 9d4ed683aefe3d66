import ArgumentParser
import ReelKV

struct QuotaShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show the bounds, and how much of them is used. The default.",
        discussion: """
            What the store takes is what all its files take on the file system; what a tenant has are its page images alone.

            Example:
              reelkv quota show --tenant acme
            """)

    @OptionGroup var store: StoreOption

    @Option(help: "Only this tenant's bound.")
    var tenant: String?

    @OptionGroup var output: OutputOption

    func run() throws {
        let report = try QuotaReport(try store.openToLook())
        if let tenant {
            try output.write(try report.tenant(named: tenant)) { $0.text() }
        } else {
            try output.write(report) { $0.text() }
        }
    }
}
