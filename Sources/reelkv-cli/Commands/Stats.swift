import ArgumentParser
import ReelKV
import Rendering

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

struct StatsReport: Encodable {
    struct Profile: Encodable {
        var profile: String
        var pages: Int
        var tokens: Int
        var elements: Int
        var storedBytes: Int
        var bitsPerElement: Double
        var exactBytes: Int
        var ratio: Double

        enum CodingKeys: String, CodingKey {
            case profile, pages, tokens, elements, ratio
            case storedBytes = "stored_bytes"
            case bitsPerElement = "bits_per_element"
            case exactBytes = "exact_bytes"
        }

        init(_ profile: StoreStatistics.Profile) {
            self.profile = ProfileArgument.name(of: profile.profileID)
            pages = profile.pages
            tokens = profile.tokens
            elements = profile.elements
            storedBytes = profile.imageBytes
            bitsPerElement = profile.bitsPerElement
            exactBytes = profile.exactBytes
            ratio = profile.imageBytes > 0 ? Double(profile.exactBytes) / Double(profile.imageBytes) : 0
        }
    }

    var tokens: Int
    var elements: Int
    var storedBytes: Int
    var indexBytes: Int
    var bitsPerElement: Double
    var exactBytes: Int
    var ratio: Double
    var models: Int
    var tenants: Int
    var videos: Int
    var sessions: Int
    var building: Int
    var profiles: [Profile]
    var volumes: [VolumeReport]
    var usage: UsageReport

    enum CodingKeys: String, CodingKey {
        case tokens, elements, ratio, models, tenants, videos, sessions, building, profiles, volumes, usage
        case storedBytes = "stored_bytes"
        case indexBytes = "index_bytes"
        case bitsPerElement = "bits_per_element"
        case exactBytes = "exact_bytes"
    }

    init(_ statistics: StoreStatistics) {
        tokens = statistics.tokens
        elements = statistics.elements
        storedBytes = statistics.storedBytes
        indexBytes = statistics.indexBytes
        bitsPerElement = statistics.bitsPerElement
        exactBytes = statistics.exactBytes
        ratio = statistics.ratio
        models = statistics.models
        tenants = statistics.tenants
        videos = statistics.videos
        sessions = statistics.sessions
        building = statistics.building
        profiles = statistics.profiles.map(Profile.init)
        volumes = statistics.volumes.map(VolumeReport.init)
        usage = UsageReport(statistics)
    }

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
