import ArgumentParser
import ReelKV
import Rendering
import Reports

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List videos and sessions, or models, pages or volumes.",
        discussion: """
            Without a word it lists videos and sessions, those still being written too.

            Examples:
              reelkv ls
              reelkv ls pages --tenant acme --json
            """)

    enum What: String, ExpressibleByArgument, CaseIterable {
        case models, videos, sessions, pages, volumes
    }

    @Argument(help: "What to list.")
    var what: What?

    @OptionGroup var store: StoreOption

    @Option(help: "Only this tenant's; by default all tenants'.")
    var tenant: String?

    @OptionGroup var output: OutputOption

    func run() throws {
        let store = try store.openToLook()
        switch what {
        case nil: try list(try sequences(.video, store) + sequences(.session, store), nothing: "videos or sessions")
        case .videos: try list(try sequences(.video, store), nothing: "videos")
        case .sessions: try list(try sequences(.session, store), nothing: "sessions")
        case .models:
            try output.write(try store.models().map(ModelReport.init)) { models in
                models.isEmpty ? "no models: add one with `reelkv model add`\n" : ModelReport.table(models)
            }
        case .pages:
            let pages = try store.pages().filter { tenant == nil || $0.tenant == tenant }
            try output.write(pages.sorted(by: PageReport.isBefore).map(PageReport.init)) { pages in
                pages.isEmpty ? "no pages\n" : PageReport.table(pages)
            }
        case .volumes:
            try output.write(try store.statistics().volumes.map(VolumeReport.init)) { volumes in
                volumes.isEmpty ? "no volumes\n" : VolumeReport.table(volumes)
            }
        }
    }

    private func sequences(_ kind: SequenceKind, _ store: Store) throws -> [SequenceReport] {
        try store.sequences(kind, tenant: tenant, building: true).map(SequenceReport.init)
    }

    private func list(_ sequences: [SequenceReport], nothing: String) throws {
        try output.write(sequences) { sequences in
            sequences.isEmpty ? "no \(nothing): store one with `reelkv import`\n" : SequenceReport.table(sequences)
        }
    }
}
