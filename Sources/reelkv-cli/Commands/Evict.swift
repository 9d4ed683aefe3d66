import ArgumentParser
import ReelKV
import Rendering

struct EvictCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evict", abstract: "Drop the pages that are worth least.",
        discussion: """
            Without --to it drops what `reelkv quota` leaves no room for. The last pages of a sequence go before those in front \
            of them; pages that are pinned, being written or being read do not go. A video or session whose last page goes is \
            gone; what is left of its pages still matches.

            Examples:
              reelkv evict --to 20GiB --dry-run
              reelkv evict --to 20GiB --policy lru
            """)

    @OptionGroup var store: StoreOption

    @Option(
        help: ArgumentHelp("Bytes that all files of the store may take together afterwards, such as 20GiB.", valueName: "size"))
    var to: ByteSize?

    @Option(help: "What goes first, this time; by default the store's own policy.")
    var policy: PolicyArgument?

    @Flag(help: "Evict nothing, only tell what would be.")
    var dryRun = false

    @OptionGroup var output: OutputOption

    func run() throws {
        let store = try store.openToChange()
        let report =
            dryRun
            ? try store.evictionPlan(to: to?.bytes, policy: policy?.policy)
            : try store.evict(to: to?.bytes, policy: policy?.policy)
        let occupied = try store.space().occupiedBytes
        let result = EvictionResult(dryRun: dryRun, evicted: EvictionSummary(report), occupiedBytes: occupied, to: to?.bytes)
        try output.write(result) { $0.text() }
    }
}

struct EvictionResult: Encodable {
    var dryRun: Bool
    var evicted: EvictionSummary
    /// Of all files, afterwards.
    var occupiedBytes: Int
    /// What was asked for.
    var to: Int?

    enum CodingKeys: String, CodingKey {
        case evicted, to
        case dryRun = "dry_run"
        case occupiedBytes = "occupied_bytes"
    }

    func text() -> String {
        var text = evicted.text(isPlan: dryRun) + "the store takes \(Format.bytes(occupiedBytes))"
        if !dryRun, let to, occupiedBytes > to {
            text += ", more than asked for: the rest is pinned, in use, or comes back when volumes are compacted"
        }
        return text + "\n"
    }
}
