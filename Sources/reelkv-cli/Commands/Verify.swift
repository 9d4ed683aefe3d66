import ArgumentParser
import ReelKV
import Rendering
import Reports

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check every record, reference and page of the store, and repair them.",
        discussion: """
            Damaged pages are marked, so that they count as not stored from then on and can be imported again; nothing else is \
            changed without --repair, and nothing at all where the store cannot be written. Other processes may go on reading and \
            writing.

            With --repair, records that cannot be right are dropped, all counts are computed again, and an index that is lost is \
            made anew from the volumes and the file 'identity'. All that is dropped is listed. It may be interrupted at any time: \
            the next one begins anew.

            The exit status is 0 when nothing is wrong, 3 when something was and all of it is repaired, and 1 when something \
            still is, as for any command that fails.

            Examples:
              reelkv verify --quick
              reelkv verify --repair --dry-run
              reelkv verify --repair --json
            """)

    @OptionGroup var store: StoreOption

    @Flag(help: "Check the index and the volumes, but read no page.")
    var skipPages = false

    @Flag(help: "Compare the pages' checksums, but decode nothing.")
    var quick = false

    @Flag(help: "Repair what is wrong.")
    var repair = false

    @Flag(help: "With --repair: change nothing, only show what would be done.")
    var dryRun = false

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    static let repairedStatus: Int32 = 3

    func validate() throws {
        guard repair || !dryRun else { throw ValidationError("--dry-run shows what --repair would do: name both") }
        guard !quick || !skipPages else {
            throw ValidationError("--quick reads all pages and --skip-pages none: name one of them")
        }
    }

    func run() throws {
        let path = try store.path()
        let opened: Store
        do {
            opened = try repair && !dryRun ? store.openToChange() : store.openToRead()
        } catch let error as StoreError where (error.code == .notAStore || error.code == .damaged) && Store.isRebuildable(path) {
            return try rebuild(path, after: error)
        }
        let bar = VerificationBar(quiet)
        defer { bar.finish() }
        let depth: VerificationDepth = skipPages ? .index : quick ? .checksums : .tensors
        guard repair else {
            let report = try opened.verify(depth: depth, quarantining: opened.access == .readWrite, progress: bar.advance)
            bar.finish()
            try output.write(VerifyReport(report)) { $0.text() }
            if !report.isSound { throw unsound(report.problems.count) }
            return
        }
        let report = try opened.repair(depth: depth, isDryRun: dryRun, progress: bar.advance)
        bar.finish()
        try finish(report)
    }

    /// The index does not open at all.
    private func rebuild(_ path: String, after error: StoreError) throws {
        guard repair else {
            // what says what to do itself needs no advice
            let isAdvised = "\(error)".contains("--repair")
            throw Failure("\(error)" + (isAdvised ? "" : "; `reelkv verify --repair` makes the index anew"))
        }
        guard !dryRun else {
            throw Failure("\(error); without --dry-run it would be made anew")
        }
        let keys = try GivenKey.byTenant(files: store.keyFile, in: path)
        try finish(try Store.rebuild(at: path, keys: keys))
    }

    private func finish(_ report: RepairReport) throws {
        try output.write(VerifyReport(report, isDryRun: dryRun)) { $0.text() }
        guard report.isSound else { throw unsound(report.left.count) }
        if report.isRebuilt || !report.found.isSound { throw ExitCode(Self.repairedStatus) }
    }

    private func unsound(_ problems: Int) -> Failure {
        let advice = repair ? "" : ": damaged pages count as not stored, import their tokens again; --repair mends the rest"
        return Failure(
            "the store is not sound, \(counted(problems, "problem")) found"
                + (repair && !dryRun ? " that cannot be repaired" : advice))
    }
}

/// The bar of a verification, which learns how many pages there are when it begins.
private final class VerificationBar {
    private let quiet: QuietOption
    private var bar: ProgressBar?
    private var shown = 0

    init(_ quiet: QuietOption) { self.quiet = quiet }

    func advance(done: Int, total: Int) {
        if bar == nil { bar = quiet.progress("verify", total: total, unit: .count("pages")) }
        bar?.advance(by: done - shown)
        shown = done
    }

    func finish() {
        bar?.finish()
        bar = nil
    }
}

extension VerifyReport {
    func text() -> String {
        var text =
            "checked \(counted(nodes, "record")), \(counted(pages, "page")) (\(Format.bytes(bytes))), "
            + "\(counted(sequences, "sequence")), \(counted(volumes, "volume"))\n"
        if quarantined > 0 {
            text +=
                "\(counted(quarantined, "page")) failed a checksum before and will not be used again: import their tokens anew\n"
        }
        if let lockedNodes {
            text +=
                "\(counted(lockedNodes, "record")) of encrypted tenants: only checksums were checked, give their keys for the rest\n"
        }
        if orphanPages > 0 {
            let (belong, them) = orphanPages == 1 ? ("belongs", "it") : ("belong", "them")
            let images = "\(counted(orphanPages, "page image")) (\(Format.bytes(orphanBytes)))"
            text += "\(images) \(belong) to nothing: compaction frees \(them)\n"
        }
        for file in leftovers { text += "\(file.path) (\(Format.bytes(file.bytes))) \(file.message)\n" }
        for problem in problems { text += problem.text() }
        return text + outcome()
    }

    private func outcome() -> String {
        guard let repair else { return problems.isEmpty ? "everything is as it should be\n" : "" }
        var text = repair.rebuilt ? "the index was lost and is made anew\n" : ""
        for change in repair.changes { text += (repair.dryRun ? "would repair: " : "repaired: ") + change.text() }
        if repair.dryRun, !problems.isEmpty { return text + "nothing was changed: this was a dry run\n" }
        if !repair.left.isEmpty { return text + repair.left.map { "still wrong: " + $0.text() }.joined() }
        let names = repair.rebuilt ? "; names of sequences come back when they are written again" : ""
        return text + (problems.isEmpty && !repair.rebuilt ? "everything is" : "everything is now") + " as it should be\(names)\n"
    }
}

extension VerifyReport.Problem {
    fileprivate func text() -> String {
        // a chain hash is known by its beginning
        let isHash = subject.utf8.count == 64 && !subject.contains("/")
        return "\(kind) \(isHash ? String(subject.prefix(16)) : subject): \(message)\n"
    }
}
