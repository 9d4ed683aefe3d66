import ArgumentParser
import KVCodec

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Rebuilds stores as crashes of the machine may leave them, and looks at each.
struct TornCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "torn",
        abstract: "Rebuilds stores as a crash of the machine may leave them, and looks at each.",
        discussion: """
            A process writes, evicts, compacts and demotes, and every change it makes to its files is recorded. At many moments of that \
            the folder is rebuilt with all that had been flushed until then, and some of what had been written since: none, all, the \
            first or the last of it, or any; cut at a sector. Names that were not flushed are there or not. The store must open, be \
            sound, and hold every acknowledged sequence, bit for bit where it is exact; and a process goes on with it.
            """)

    @Option(help: "The library that records calls; tools/crash builds it.") var library: String
    @Option(help: "How many folders are rebuilt.") var folders = 1000
    @Option(help: "Folders rebuilt of one recording.") var foldersPerRecording = 25
    @Option(help: "Steps of the process that is recorded.") var steps = 30
    @Option(help: "What all choices follow from; printed.") var seed: UInt64?
    @Option(help: "Only the folder of this number, counted from 1.") var replay: Int?
    @Option(help: "Where stores are made.") var folder = "/tmp"

    /// After so many it ends.
    private static let faultsMax = 5

    mutating func validate() throws {
        guard folders > 0, foldersPerRecording > 0, steps > 0 else { throw ValidationError("counts are positive") }
        if let replay {
            guard seed != nil else { throw ValidationError("--replay is of a --seed") }
            folders = max(folders, replay)
        }
    }

    func run() throws {
        let seed = seed ?? UInt64.random(in: 0..<1_000_000_000)
        FileHandleOutput.error("torn: seed \(seed)\n")
        var outcome = CrashOutcome(seed: seed)
        var (first, passed) = (1, 0)
        while first <= folders, outcome.faults.count < Self.faultsMax {
            let numbers = first...min(folders, first + foldersPerRecording - 1)
            first += foldersPerRecording
            if let replay, !numbers.contains(replay) { continue }
            passed += try crash(numbers, seed: seed &+ UInt64(numbers.lowerBound) &* 1_000_003, into: &outcome)
        }
        for fault in outcome.faults { print("fault: \(fault)") }
        print(
            "\(passed) passed, \(outcome.faults.count) failed: \(outcome.stepsAcknowledged) acknowledged steps, "
                + "\(outcome.sequencesCompared) sequences compared (\(outcome.exactCompared) bit for bit), "
                + "\(outcome.sequencesShortened) lost their newest pages under relaxed durability (seed \(seed))")
        if !outcome.faults.isEmpty { throw ExitCode.failure }
    }

    /// Records one process and rebuilds its folder at random moments.
    ///
    /// - Returns: how many rebuilt folders were as they should be.
    private func crash(_ numbers: ClosedRange<Int>, seed: UInt64, into outcome: inout CrashOutcome) throws -> Int {
        var run = try CrashRun(folder: folder, seed: seed, mib: 0)
        var disk = try TornFolder(of: run.path)
        let recording = try run.recorded(library: library, steps: steps, seed: seed)
        var random = SplitMix64(seed: seed ^ 0x746f_726e)
        let moments = numbers.map { _ in Int(random.next() % UInt64(recording.changes.count + 1)) }.sorted()
        var (next, passed) = (0, 0)
        let faults = outcome.faults.count
        for moment in 0...recording.changes.count {
            while next < moments.count, moments[next] == moment {
                let number = numbers.lowerBound + next
                next += 1
                if let replay, replay != number { continue }
                do {
                    try lookAt(disk, of: run, number: number, seed: seed &+ UInt64(number), into: &outcome)
                    passed += 1
                } catch { outcome.faults.append("folder \(number) (--seed \(outcome.seed) --replay \(number)), \(error)") }
                if outcome.faults.count >= Self.faultsMax { return passed }
            }
            guard moment < recording.changes.count else { break }
            try disk.apply(recording.changes[moment], of: recording)
            if case .said(let text) = recording.changes[moment] {
                for line in text.split(separator: "\n") { run.take(line, into: &outcome) }
            }
        }
        if outcome.faults.count == faults { run.remove() }
        return passed
    }

    /// What a crash leaves, looked at before and after a process went on with it. What is wrong is kept.
    private func lookAt(
        _ disk: TornFolder, of run: CrashRun, number: Int, seed: UInt64, into outcome: inout CrashOutcome
    ) throws {
        var random = SplitMix64(seed: seed)
        var torn = run.torn(number: number)
        try disk.rebuild(at: torn.path, &random)
        do {
            try torn.look(into: &outcome, seed: seed)
            try torn.goOn(steps: 6, seed: seed, into: &outcome)
        } catch { throw CrashRun.Fault(description: "store \(torn.path): \(error)") }
        torn.removeStore()
    }
}

extension CrashRun {
    /// Has a process change the store, and its changes recorded.
    func recorded(library: String, steps: Int, seed: UInt64) throws -> Recording {
        let recorded = path + "-recording"
        let child = try ChildProcess.run(
            work(seed: seed) + ["--steps", "\(steps)"],
            environment: ["LD_PRELOAD": library, "REELKV_FAULT_FOLDER": path, "REELKV_RECORDING": recorded])
        guard child.ending == "status 0" else {
            throw Fault(description: "seed \(seed): the recorded process, \(path): \(child.ending)")
        }
        return try Recording(readingFrom: recorded)
    }

    /// Another process goes on, and what it leaves is looked at.
    mutating func goOn(steps: Int, seed: UInt64, into outcome: inout CrashOutcome) throws {
        let child = try ChildProcess.run(work(seed: seed) + ["--steps", "\(steps)"])
        for line in child.lines { take(line, into: &outcome) }
        guard child.ending == "status 0" else { throw Fault(description: "seed \(seed): going on: \(child.ending)") }
        do { try look(into: &outcome, seed: seed) } catch { throw Fault(description: "after going on: \(error)") }
    }
}
