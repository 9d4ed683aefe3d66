import ArgumentParser
import ReelKV
import Rendering

struct CompactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact", abstract: "Give the space of deleted pages back.",
        discussion: """
            Copies what lives in mostly dead volumes and removes them, and deletes what ended writers left unfinished. Other \
            processes may go on reading and writing. It needs no more free disk than one volume takes, and may be interrupted \
            at any time: the next one goes on from there.

            Examples:
              reelkv compact --dry-run
              reelkv compact --target-ratio 1.05 --max-bytes-per-second 64MiB
            """)

    @OptionGroup var store: StoreOption

    @Flag(help: "Change nothing, only show which volumes would be emptied.")
    var dryRun = false

    @Option(
        help: ArgumentHelp(
            "Bytes on disk for each byte of live pages at which it is done; volumes within it are left alone.",
            valueName: "ratio"))
    var targetRatio = CompactionOptions().targetRatio

    @Option(help: ArgumentHelp("Copy no faster than this, such as 64MiB.", valueName: "size"))
    var maxBytesPerSecond: ByteSize?

    @Option(
        help: ArgumentHelp(
            "Delete unfinished sequences, whose writer has ended, that got no tokens for this time: 90s, 30m, 24h, 7d. (default: 24h)",
            valueName: "time"))
    var unfinishedOlderThan: DurationArgument?

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    func run() throws {
        var options = CompactionOptions()
        options.targetRatio = targetRatio
        options.bytesPerSecondMax = maxBytesPerSecond?.bytes
        if let unfinishedOlderThan { options.unfinishedOlderThan = unfinishedOlderThan.seconds }
        if dryRun {
            let plan = try store.openToLook().compactionPlan(options)
            try output.write(CompactionPlanReport(plan)) { $0.text() }
        } else {
            try output.write(CompactionResult(try compact(options))) { $0.text() }
        }
    }

    private func compact(_ options: CompactionOptions) throws -> CompactionReport {
        let store = try store.openToChange()
        var bar: ProgressBar?
        var shown = 0
        defer { bar?.finish() }
        return try store.compact(options) { progress in
            if bar == nil { bar = quiet.progress("compact", total: progress.bytesToCopy, unit: .bytes) }
            bar?.advance(by: progress.bytesCopied - shown)
            shown = progress.bytesCopied
        }
    }
}
