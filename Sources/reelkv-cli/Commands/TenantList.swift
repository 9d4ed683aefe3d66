import ArgumentParser
import ReelKV
import Rendering
import Reports

struct TenantListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List the tenants, and which are encrypted.",
        discussion: """
            Example:
              reelkv tenant ls --json
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var output: OutputOption

    func run() throws {
        try output.write(try store.openToLook().tenantInfos().map(TenantReport.init)) { reports in
            reports.isEmpty ? "no tenants: they come with what is first stored for them\n" : TenantReport.table(reports)
        }
    }
}
