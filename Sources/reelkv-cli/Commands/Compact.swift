import ArgumentParser
import ReelKV
import Rendering

struct CompactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact", abstract: "Give the space of deleted pages back, and store cold ones smaller.",
        discussion: """
            Copies what lives in mostly dead volumes and removes them, and deletes what ended writers left unfinished. Other \
            processes may go on reading and writing. It needs no more free disk than one volume takes, and may be interrupted \
            at any time: the next one goes on from there.

            With --demote, pages are first encoded anew to a profile with fewer bits, the coldest first: instead of being lost \
            one day they stay, with the error that `reelkv show` reports. Callers that ask for exact pages then miss them. \
            It takes pinned sequences too, and those of every tenant.

            Examples:
              reelkv compact --dry-run
              reelkv compact --demote vidkv-1.5-1.58 --older-than 7d
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

    @Option(help: ArgumentHelp("Encode pages that have more bits anew to this profile.", valueName: "profile"))
    var demote: ProfileArgument?

    @Option(help: ArgumentHelp("Demote only pages unused for this time: 90s, 30m, 24h, 7d.", valueName: "time"))
    var olderThan: DurationArgument?

    @Option(
        help: ArgumentHelp(
            "Demote only until this much is free, within the quota and on the file system, such as 10GiB.", valueName: "size"))
    var untilFree: ByteSize?

    @Flag(
        help:
            "Also move pages that are sealed with an earlier key of an encrypted tenant whose key is given: see reelkv tenant rekey."
    )
    var reseal = false

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    func validate() throws {
        guard demote != nil || (olderThan == nil && untilFree == nil) else {
            throw ValidationError("--older-than and --until-free say which pages --demote takes: name a profile with --demote")
        }
    }

    func run() throws {
        var options = CompactionOptions()
        options.targetRatio = targetRatio
        options.reseals = reseal
        options.bytesPerSecondMax = maxBytesPerSecond?.bytes
        if let unfinishedOlderThan { options.unfinishedOlderThan = unfinishedOlderThan.seconds }
        if dryRun {
            let store = try store.openToLook()
            let plan = try store.compactionPlan(options)
            let demotion = try demotionOptions.map { try store.demotionPlan($0) }
            try output.write(CompactionPlanReport(plan, demotion)) { $0.text() }
        } else {
            let store = try store.openToChange()
            let before = try store.space().occupiedBytes
            let demotion = try demotionOptions.map { try demote($0, in: store) }
            var report = try compact(options, store)
            if demotion != nil { report.folderBytesBefore = before }
            try output.write(CompactionResult(report, demotion)) { $0.text() }
        }
    }

    private var demotionOptions: DemotionOptions? {
        guard let demote else { return nil }
        var options = DemotionOptions(profile: demote.profile)
        options.unusedSeconds = olderThan.map { Int($0.seconds) } ?? 0
        options.freeBytes = untilFree?.bytes
        return options
    }

    private func demote(_ options: DemotionOptions, in store: Store) throws -> DemotionReport {
        var bar: ProgressBar?
        var shown = 0
        defer { bar?.finish() }
        return try store.demote(options) { done, total in
            if bar == nil { bar = quiet.progress("demote", total: total, unit: .count("pages")) }
            bar?.advance(by: done - shown)
            shown = done
        }
    }

    private func compact(_ options: CompactionOptions, _ store: Store) throws -> CompactionReport {
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
