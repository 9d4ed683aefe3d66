import ArgumentParser
import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Stops processes in the middle of what they do, and looks at what others can do meanwhile.
struct StopsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stops",
        abstract: "Stops processes in the middle of what they do, and looks at what others can do meanwhile.",
        discussion: """
            Each process is stopped (SIGSTOP) at a random moment or at one of the points between two states on the disk. While it is, \
            another must be able to read everything, and a third writes, evicts and compacts: it may have to wait where the stopped one \
            is in the middle of a write, and never for one that reads. Who comes to a file that the stopped one is just opening gives up \
            after some seconds, with an error. Then the stopped process goes on or is killed; all must end, and the store be sound and whole.
            """)

    @Option(help: "How many processes are stopped.") var stops = 100
    @Option(help: "Stops on one store, before a new one is made.") var stopsPerStore = 20
    @Option(help: "What all choices follow from; printed.") var seed: UInt64?
    @Option(help: "Where stores are made.") var folder = "/tmp"

    private static let faultsMax = 5

    mutating func validate() throws {
        guard stops > 0, stopsPerStore > 0 else { throw ValidationError("counts are positive") }
    }

    func run() throws {
        let seed = seed ?? UInt64.random(in: 0..<1_000_000_000)
        FileHandleOutput.error("stops: seed \(seed)\n")
        var outcome = CrashOutcome(seed: seed)
        var tally = StopTally()
        var random = SplitMix64(seed: seed)
        while tally.total < stops, outcome.faults.count < Self.faultsMax {
            var contest = try Contest(folder: folder, seed: random.next())
            do {
                for _ in 0..<min(stopsPerStore, stops - tally.total) {
                    try contest.refill(seed: random.next(), into: &outcome)
                    try contest.stop(random: &random, tally: &tally, into: &outcome)
                }
                contest.remove()
            } catch { outcome.faults.append("stop \(tally.total), store \(contest.path): \(error)") }
        }
        for fault in outcome.faults { print("fault: \(fault)") }
        for (point, count) in outcome.points.sorted(by: { $0.key < $1.key }) { print("  \(count) at: \(point)") }
        print(
            "\(tally.total) stops (\(tally.inTime) before the process had ended, \(tally.readers) of them readers, \(tally.waits) held up a writer, "
                + "\(tally.kills) were killed, \(tally.heldUp) kept one from opening the store), "
                + "\(outcome.stepsAcknowledged) acknowledged changes, \(outcome.sequencesCompared) sequences compared, "
                + "\(outcome.faults.count) faults (seed \(seed))")
        if !outcome.faults.isEmpty { throw ExitCode.failure }
    }
}

struct StopTally {
    var total = 0
    var inTime = 0
    /// Those that were reading.
    var readers = 0
    var waits = 0
    var kills = 0
    /// Processes that could not open the store, because the one stopped is just opening it.
    var heldUp = 0
}

extension Contest {
    /// Seconds that a writer gets while another process is stopped.
    private static let writerSeconds = 1.0

    mutating func stop(random: inout SplitMix64, tally: inout StopTally, into outcome: inout CrashOutcome) throws {
        tally.total += 1
        var history = history()
        let verbs = WorkVerb.choices(evicting: true)
        let isReader = random.next() % 3 == 0
        let moment: [String] =
            if isReader { ["--delay", "\(random.next() % 10_000)"] } else if random.next() % 2 == 0 {
                ["--delay", "\(random.next() % 40_000)"]
            } else { ["--passes", "\(1 + random.next() % 20)"] }
        let stopped = try work(
            seed: random.next(), verbs: isReader ? [.read] : verbs, steps: isReader ? 60 : 12, more: moment + ["--stops"])
        stopped.wait(seconds: ChildProcess.patience)
        if stopped.state == .stopped {
            tally.inTime += 1
            if isReader { tally.readers += 1 }
        }
        // whoever only reads waits for nobody
        let reader = try work(seed: random.next(), verbs: [.read, .statistics], steps: 20)
        try reader.finish()
        let writer = try work(seed: random.next(), verbs: verbs, steps: 6)
        if writer.wait(seconds: isReader ? ChildProcess.patience : Self.writerSeconds) == .running {
            if isReader { throw CrashRun.Fault(description: "a stopped reader holds up a writer") }
            tally.waits += 1
        }
        if stopped.state == .stopped, random.next() % 2 == 0 {
            stopped.send(SIGKILL)
            stopped.wait()
            tally.kills += 1
        } else {
            if stopped.state == .stopped { stopped.goOn() }
            try stopped.finish()
        }
        try writer.finish()
        for child in [stopped, writer] { history.add(child.lines) }
        for child in [reader, writer] where child.lines.contains(where: { CrashJournal.parse($0)?.entry == .heldUp }) {
            tally.heldUp += 1
        }
        for case .dies(let point)? in stopped.lines.map({ CrashJournal.parse($0)?.entry }) {
            outcome.points[point, default: 0] += 1
        }
        try settle(history, into: &outcome)
    }
}
