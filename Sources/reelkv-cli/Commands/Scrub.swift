import ArgumentParser
import ReelKV
import Rendering
import Reports

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

struct ScrubCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub", abstract: "Read all pages at a limited rate, and mark the damaged ones.",
        discussion: """
            Disks forget: what is read now and then is found damaged while it can still be computed again. Pages are read in the \
            order of the disk; those that fail a checksum count as not stored from then on. Where it stands is written down, so \
            that an interrupted scrub goes on from there. Other processes may go on reading and writing.

            With --every it stays, and begins a new round when the last one ended so long ago. `reelkv stats` shows what was found. \
            The exit status is 1 when a page was damaged.

            Examples:
              reelkv scrub --max-bytes-per-second 64MiB
              reelkv scrub --every 7d --quiet
            """)

    @OptionGroup var store: StoreOption

    @Option(help: ArgumentHelp("Read no faster than this. (default: 64MiB)", valueName: "size"))
    var maxBytesPerSecond: ByteSize?

    @Flag(help: "End with the round under way. The default.")
    var once = false

    @Option(help: ArgumentHelp("Stay, and begin a round this time after the last one ended: 12h, 7d.", valueName: "time"))
    var every: DurationArgument?

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    private static let defaultRate = 64 << 20

    func validate() throws {
        guard !once || every == nil else { throw ValidationError("--once ends and --every stays: name one of them") }
        guard maxBytesPerSecond.map({ $0.bytes > 0 }) ?? true else {
            throw ValidationError("--max-bytes-per-second is at least 1")
        }
    }

    func run() throws {
        let store = try store.openToChange()
        guard let every else {
            let report = try round(store)
            if report.damaged > 0 {
                throw Failure("\(counted(report.damaged, "page")) damaged: import their tokens again")
            }
            return
        }
        while true {
            let last = try store.statistics().scrub.finishedSeconds ?? 0
            let left = last + every.seconds - Int64(time(nil))
            if left > 0 { sleep(UInt32(clamping: min(left, 3600))) } else { _ = try round(store) }
        }
    }

    private func round(_ store: Store) throws -> ScrubReport {
        var options = ScrubOptions()
        options.bytesPerSecondMax = maxBytesPerSecond?.bytes ?? Self.defaultRate
        var bar: ProgressBar?
        var shown = 0
        defer { bar?.finish() }
        let total = try store.space().liveBytes
        let report = try store.scrub(options) { report in
            if bar == nil { bar = quiet.progress("scrub", total: total, unit: .bytes) }
            bar?.advance(by: report.bytes - shown)
            shown = report.bytes
        }
        bar?.finish()
        bar = nil
        try output.write(ScrubResult(report)) { $0.text() }
        return report
    }
}

extension ScrubResult {
    func text() -> String {
        "read \(counted(pages, "page")) (\(Format.bytes(bytes))): \(damaged == 0 ? "none" : "\(damaged)") damaged\n"
    }
}
