import ArgumentParser
import ReelKV
import Rendering
import Reports

struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Count what the store holds, and what it takes.",
        discussion: """
            Stored bytes are those of every file in the store's folder; a profile's are those of its page images alone. Tokens \
            that several sequences share count once. Exact bytes are what the same elements take uncompressed.

            Look-ups and what became of them count since the store was created. A page is as old as the last use of it, or of \
            one that goes on from it.

            Example:
              reelkv stats --json
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var output: OutputOption

    func run() throws {
        try output.write(StatsReport(try store.openToLook().statistics())) { $0.text(terminal: .standardOutput()) }
    }
}

extension StatsReport {
    /// How the store compares with the bare tensors.
    private var comparison: String {
        guard exactBytes > 0, storedBytes > 0 else { return "" }
        let factor = ratio >= 1 ? ratio : 1 / ratio
        return " for \(Format.bytes(exactBytes)) of tensors: \(Format.decimal(bitsPerElement, places: 2)) bits per element, "
            + "\(Format.decimal(factor, places: 2)) times \(ratio >= 1 ? "smaller" : "larger")"
    }

    func text(terminal: Terminal) -> String {
        contents() + (usage.isEmpty ? "" : "\n" + usage.text(terminal: terminal))
    }

    private func contents() -> String {
        var text = """
            \(counted(tokens, "token")), \(counted(elements, "element")), in \(counted(videos, "video")) and \
            \(counted(sessions, "session")) of \(counted(tenants, "tenant")) and \(counted(models, "model"))
            \(Format.bytes(storedBytes)) on disk (\(Format.bytes(indexBytes)) of it the index)\(comparison)

            """
        if scrub.pages > 0 {
            let damage = scrub.damaged > 0 ? ", \(counted(scrub.damaged, "page")) of them damaged" : ""
            let end = scrub.finishedSeconds.map { "the last round ended \(timestamp($0))" } ?? "no round has ended yet"
            text += "\(counted(scrub.pages, "page")) (\(Format.bytes(scrub.bytes))) scrubbed\(damage); \(end)\n"
        }
        if building > 0 { text += "\(counted(building, "sequence")) being written, or left unfinished\n" }
        guard !profiles.isEmpty else { return text }
        var table = TextTable(
            .left("PROFILE"), .right("PAGES"), .right("TOKENS"), .right("STORED"), .right("EXACT"), .right("BITS/ELEMENT"),
            .right("RATIO"))
        for profile in profiles {
            table.append(
                profile.profile, Format.count(profile.pages), Format.count(profile.tokens), Format.bytes(profile.storedBytes),
                Format.bytes(profile.exactBytes), Format.decimal(profile.bitsPerElement, places: 2),
                Format.decimal(profile.ratio, places: 2))
        }
        return text + "\n" + table.text() + volumeText()
    }

    /// The volumes, or those with the most dead bytes where they are many.
    private func volumeText() -> String {
        let shown =
            volumes.count <= Self.volumesShown
            ? volumes
            : Array(
                volumes.sorted { $0.deadBytes > $1.deadBytes }.prefix(Self.volumesShown))
        guard !shown.isEmpty else { return "" }
        let rest = volumes.count - shown.count
        return "\n" + VolumeReport.table(shown) + (rest > 0 ? "and \(counted(rest, "volume")) with less to give back\n" : "")
    }

    private static let volumesShown = 16
}
