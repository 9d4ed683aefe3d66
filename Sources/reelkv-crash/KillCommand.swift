import ArgumentParser
import KVCodec
import ReelKV
import Reports

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Kills process after process, and looks at what each leaves.
struct KillCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kill",
        abstract: "Kills processes that write, evict, compact and demote, and looks at what they leave.",
        discussion: """
            Every other process ends at a random moment, the others at one of the points between two states on the disk. Afterwards \
            the store is opened, verified, and every sequence that was acknowledged is compared, bit for bit where it is exact.
            """)

    @Option(help: "How many processes are killed.") var kills = 300
    @Option(help: "What all choices follow from; printed.") var seed: UInt64?
    @Option(help: "Kills of one store, before a new one is made.") var killsPerStore = 25
    @Option(help: "MiB of pages that each store has from the start.") var storeMib = 0
    @Option(help: "Where stores are made.") var folder = "/tmp"
    @Flag(help: "Write the outcome as JSON.") var json = false

    /// After so many it ends.
    private static let faultsMax = 5

    mutating func validate() throws {
        guard kills > 0, killsPerStore > 0, storeMib >= 0 else { throw ValidationError("counts are positive") }
    }

    func run() throws {
        let seed = seed ?? UInt64.random(in: 0..<1_000_000_000)
        var outcome = CrashOutcome(seed: seed)
        FileHandleOutput.error("crash: seed \(seed)\n")
        var number = 0
        while outcome.kills < kills, outcome.faults.count < Self.faultsMax {
            let faults = outcome.faults.count
            var run = try CrashRun(folder: folder, seed: seed &+ UInt64(number) &* 1_000_003, mib: storeMib)
            for _ in 0..<min(killsPerStore, kills - outcome.kills) {
                outcome.kills += 1
                do {
                    try run.killOne(into: &outcome)
                } catch {
                    outcome.faults.append("kill \(outcome.kills), store \(run.path): \(error)")
                    break
                }
            }
            if outcome.faults.count == faults { run.remove() }
            number += 1
        }
        if json {
            print(try JSONOutput.text(outcome, pretty: false), terminator: "")
        } else {
            print(outcome.text)
        }
        if !outcome.faults.isEmpty { throw ExitCode.failure }
    }
}

/// What came of all kills.
struct CrashOutcome: Encodable {
    var seed: UInt64
    var kills = 0
    var stepsAcknowledged = 0
    var sequencesCompared = 0
    var exactCompared = 0
    /// Those that a crash of the machine took the newest pages of, as relaxed durability allows.
    var sequencesShortened = 0
    var reopenMillisecondsMax = 0.0
    /// Kills by the point at which they were.
    var points: [String: Int] = [:]
    var faults: [String] = []

    var text: String {
        var lines = faults.map { "fault: \($0)" }
        lines += points.sorted { $0.key < $1.key }.map { "  \($0.value) at: \($0.key)" }
        lines.append(
            "\(kills) kills, \(stepsAcknowledged) acknowledged steps, \(sequencesCompared) sequences compared (\(exactCompared) bit for bit), "
                + "slowest reopening \(Int(reopenMillisecondsMax.rounded(.up))) ms, \(faults.count) faults (seed \(seed))")
        return lines.joined(separator: "\n")
    }
}
