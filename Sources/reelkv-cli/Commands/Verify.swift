import ArgumentParser
import ReelKV
import Rendering
import Reports
import Synchronization

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check every record, reference and page of the store.",
        discussion: """
            Damaged pages are marked, so that they count as not stored from then on and can be imported again; nothing else is \
            changed, and nothing at all where the store cannot be written. Other processes may go on reading and writing. The \
            exit status is 1 when anything is wrong.

            Example:
              reelkv verify --skip-pages
            """)

    @OptionGroup var store: StoreOption

    @Flag(help: "Check the index and the volumes, but read no page.")
    var skipPages = false

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    func run() throws {
        let store = try store.openToRead()
        var bar: ProgressBar?
        var shown = 0
        let report = try store.verify(skippingPages: skipPages, quarantining: store.access == .readWrite) { done, total in
            if bar == nil { bar = quiet.progress("verify", total: total, unit: .count("pages")) }
            bar?.advance(by: done - shown)
            shown = done
        }
        bar?.finish()
        try output.write(VerifyReport(report)) { $0.text() }
        guard report.isSound else {
            throw Failure(
                "the store is not sound, \(counted(report.problems.count, "problem")) found: damaged pages count as not stored, "
                    + "import their tokens again"
            )
        }
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
        for problem in problems {
            // a chain hash is known by its beginning
            let isHash = problem.subject.utf8.count == 64 && !problem.subject.contains("/")
            text += "\(problem.kind) \(isHash ? String(problem.subject.prefix(16)) : problem.subject): \(problem.message)\n"
        }
        return problems.isEmpty ? text + "everything is as it should be\n" : text
    }
}
