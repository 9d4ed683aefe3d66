import ArgumentParser
import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Has two processes do any two things at once, and looks at what they leave.
struct RacesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "races",
        abstract: "Has two processes do any two things at once, and looks at what they leave.",
        discussion: """
            For each pair of operations, also of one with itself, two processes begin at the same moment, on the same few sequences. Each \
            must go well or be refused with an error that says why; both must end. Then the store must be sound, and each sequence be what \
            one of the processes made of it, after which no other change of it began; everything is compared, bit for bit where it is exact.
            """)

    @Option(help: "How often each pair runs.") var rounds = 1
    @Option(help: "Steps of each process.") var steps = 8
    @Option(help: "Only pairs of these operations, as a,b.") var verbs: String?
    @Option(help: "What all choices follow from; printed.") var seed: UInt64?
    @Option(help: "Where stores are made.") var folder = "/tmp"

    private static let faultsMax = 5

    mutating func validate() throws {
        guard rounds > 0, steps > 0 else { throw ValidationError("counts are positive") }
    }

    func run() throws {
        let seed = seed ?? UInt64.random(in: 0..<1_000_000_000)
        FileHandleOutput.error("races: seed \(seed)\n")
        let verbs = try verbs.map(WorkVerb.list) ?? WorkVerb.allCases
        var outcome = CrashOutcome(seed: seed)
        var pairs = 0
        var random = SplitMix64(seed: seed)
        for round in 0..<rounds {
            for (number, one) in verbs.enumerated() where outcome.faults.count < Self.faultsMax {
                var contest = try Contest(folder: folder, seed: random.next())
                var other = one
                do {
                    for second in verbs[number...] {
                        other = second
                        try contest.refill(seed: random.next(), into: &outcome)
                        try contest.race([one, second], steps: steps, random: &random, into: &outcome)
                        pairs += 1
                    }
                    contest.remove()
                } catch {
                    outcome.faults.append("\(one) and \(other), round \(round + 1), store \(contest.path): \(error)")
                }
            }
        }
        for fault in outcome.faults { print("fault: \(fault)") }
        print(
            "\(pairs) races of \(verbs.count) operations, \(outcome.stepsAcknowledged) acknowledged changes, "
                + "\(outcome.sequencesCompared) sequences compared (\(outcome.exactCompared) bit for bit), "
                + "\(outcome.faults.count) faults (seed \(seed))")
        if !outcome.faults.isEmpty { throw ExitCode.failure }
    }
}

extension Contest {
    /// Has one process for each verb, all at once.
    mutating func race(_ verbs: [WorkVerb], steps: Int, random: inout SplitMix64, into outcome: inout CrashOutcome) throws {
        var history = history()
        let children = try verbs.map { try work(seed: random.next(), verbs: [$0], steps: steps, more: ["--waits"]) }
        for child in children {
            guard child.wait(seconds: ChildProcess.patience) == .stopped else {
                throw CrashRun.Fault(description: "a process does not begin: \(child.ending)")
            }
        }
        for child in children { child.goOn() }
        for child in children { try child.finish() }
        for child in children { history.add(child.lines) }
        try settle(history, into: &outcome)
    }
}
