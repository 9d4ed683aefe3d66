import ArgumentParser
import KVCodec
import ReelKV
import StoreModel

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Has processes take random steps on one store, and compares it with a plain model of it after each.
struct ModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model",
        abstract: "Has processes take random steps on one store, and compares it with a plain model of it after each.",
        discussion: """
            Steps write, leave writers open, fork, cut, remove, pin, evict, set quotas, demote, compact, change keys, and end processes, \
            in peace or by SIGKILL. After each one another process must find all names and the sequence that was changed, as the model \
            has them, bit for bit where it is exact. A run that fails is made as short as can be, and printed as a script.
            """)

    @Option(help: "How many steps are taken.") var steps = 3000
    @Option(help: "Steps on one store, before a new one is made.") var stepsPerStore = 150
    @Option(help: "Processes that have the store open.") var processes = 3
    @Option(help: "What all choices follow from; printed.") var seed: UInt64?
    @Option(help: "A file with the steps to take, instead of random ones.") var script: String?
    @Option(help: "Where stores are made.") var folder = "/tmp"

    private static let faultsMax = 3

    mutating func validate() throws {
        guard steps > 0, stepsPerStore > 0, processes > 0 else { throw ValidationError("counts are positive") }
    }

    func run() throws {
        signal(SIGPIPE, SIG_IGN)
        if let script { return try replay(script) }
        let seed = seed ?? UInt64.random(in: 0..<1_000_000_000)
        FileHandleOutput.error("model: seed \(seed)\n")
        var (taken, faults) = (0, 0)
        var random = SplitMix64(seed: seed)
        while taken < steps, faults < Self.faultsMax {
            let script = ModelStep.random(min(stepsPerStore, steps - taken), seed: random.next())
            if let fault = try failure(of: script) {
                faults += 1
                FileHandleOutput.error("a run fails and is made shorter: \(fault)\n")
                let short = ModelScript.shrunk(script) { (try? failure(of: $0)) ?? nil != nil }
                print("fault: \(try failure(of: short) ?? fault)\nafter:\n\(ModelScript.text(short))")
            }
            taken += script.count
        }
        print("\(taken) steps of \(processes) processes, \(faults) faults (seed \(seed))")
        if faults > 0 { throw ExitCode.failure }
    }

    private func replay(_ path: String) throws {
        guard let text = Self.text(path), let script = ModelScript.parse(text) else {
            throw ValidationError("\(path) is no script: it has lines like 'append 2 40 1'")
        }
        if let fault = try failure(of: script) {
            print("fault: \(fault)\n\(script.count) steps of \(processes) processes, 1 faults")
            throw ExitCode.failure
        }
        print("\(script.count) steps of \(processes) processes, 0 faults")
    }

    /// - Returns: what is wrong after these steps; nil when nothing is.
    private func failure(of steps: [ModelStep]) throws -> String? {
        let place = try TemporaryStore(in: folder)
        defer { place.remove() }
        do {
            let run = try ModelRun(at: place.path) { try (0..<processes).map { _ in try ProcessActor(path: place.path) } }
            for step in steps { try run.take(step) }
            try run.finish()
            return nil
        } catch let error as ModelRun.Disagreement { return error.description }
    }

    private static func text(_ path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
