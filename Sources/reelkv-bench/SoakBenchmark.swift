import ArgumentParser
import KVCodec
import ReelKV
import Rendering

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A store under a quota, written and read by several processes for a long time.
struct SoakBenchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Writes much more than a quota allows, from several processes, and checks the bounds and every hit.",
        discussion: """
            Two processes write conversations turn by turn and delete some, a third reads; what is restored is compared byte for \
            byte. Fails when the folder was ever larger than the quota and one volume, when a hit was wrong, or when the store is \
            not sound in the end. The times and the write amplification are for reading: beside those of the puts stands what \
            appending to files, syncing and removing them takes without a store.
            """)

    @Option(help: "The store's quota.") var quota = Size(bytes: 1 << 30)
    @Option(help: "Bytes of all the conversations that there are.") var pool = Size(bytes: 2 << 30)
    @Option(help: "Bytes to write in all.") var written = Size(bytes: 20 << 30)
    @Option(help: "Bytes of a volume at most.") var volume = Size(bytes: 64 << 20)
    @Option(help: "Policy of eviction.") var policy = "adaptive"
    @Option(help: "Seed of the processes' choices.") var seed: UInt64 = 1

    /// A number of bytes: 268435456, 256MiB, 1GiB.
    struct Size: ExpressibleByArgument {
        var bytes: Int
        init(bytes: Int) { self.bytes = bytes }
        init?(argument: String) {
            let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)]
            guard let (unit, shift) = units.first(where: { argument.hasSuffix($0.0) }),
                let count = Int(argument.dropLast(unit.count)), count > 0, count < 1 << 20 || shift == 0
            else { return nil }
            bytes = count << shift
        }
        var defaultValueDescription: String { Format.bytes(bytes) }
    }

    private static let writers = 2

    func run() async throws {
        guard let policy = EvictionPolicy(name: policy) else { throw ValidationError("no policy '\(policy)'") }
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let path = folder.path + "/store"
        var options = Store.Options()
        options.pageTokens = SoakConversation.pageTokens
        options.volumeBytesMax = volume.bytes
        let store = try Store.create(at: path, options: options)
        try store.addModel(SoakConversation.model)
        try store.update { settings in
            settings.quotaBytes = quota.bytes
            settings.policy = policy
        }
        let floor = try await FileSystemProbe(
            folder: folder.path, putBytes: SoakConversation.turnBytes, fileBytes: quota.bytes / 32, filesMax: 16
        ).seconds(writing: written.bytes, threads: Self.writers)
        let clock = ContinuousClock()
        let start = clock.now
        let (reports, largest) = try runWorkers(store, folder: folder.path)
        let seconds = (clock.now - start).seconds
        try summarize(store, reports, floor: floor, largest: largest, seconds: seconds)
    }

    // MARK: - Processes

    private func runWorkers(_ store: Store, folder: String) throws -> (reports: [[String: Double]], largest: Int) {
        let stopFile = folder + "/stop"
        let common = [
            "--store", store.path, "--conversations", "\(max(2, pool.bytes / SoakConversation.bytes))", "--seed", "\(seed)",
        ]
        var workers = try (0..<Self.writers).map { index in
            try ChildProcess(
                [
                    "soak-worker", "--role", "writer", "--index", "\(index)", "--writers", "\(Self.writers)", "--bytes",
                    "\(written.bytes / Self.writers)",
                ] + common, output: "\(folder)/writer-\(index)")
        }
        let reader = try ChildProcess(
            ["soak-worker", "--role", "reader", "--stop-file", stopFile] + common, output: folder + "/reader")
        let bar = ProgressBar("soak", totalCount: written.bytes, unit: .bytes)
        var largest = 0
        var shown = 0
        while try !workers.allSatisfy({ try $0.hasEnded() }) {
            largest = max(largest, try store.occupiedBytes())
            let appended = min(written.bytes, try store.appendedBytes())
            bar.advance(by: appended - shown)
            shown = appended
            usleep(20_000)
        }
        bar.finish()
        try Self.touch(stopFile)
        while try !reader.hasEnded() { usleep(10_000) }
        largest = max(largest, try store.occupiedBytes())
        workers.append(reader)
        return (try workers.map { try $0.report() }, largest)
    }

    private static func touch(_ path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
        guard descriptor >= 0 else { throw ValidationError("cannot make \(path)") }
        close(descriptor)
    }

    // MARK: - Summary

    private func summarize(_ store: Store, _ reports: [[String: Double]], floor: [Double], largest: Int, seconds: Double) throws {
        let sum = { (key: String) in reports.reduce(0) { $0 + ($1[key] ?? 0) } }
        let counters = try store.writeCounters()
        let bound = quota.bytes + volume.bytes
        let problems = try store.verify().problems
        let writers = reports.prefix(Self.writers)
        print(
            "\(Format.bytes(Int(sum("written")))) written and \(Format.bytes(Int(sum("verified")))) restored and compared in \(rounded(seconds)) s"
        )
        print(
            "folder at most     \(Format.bytes(largest)), quota \(Format.bytes(quota.bytes)), quota and one volume \(Format.bytes(bound))"
        )
        print(
            "hits verified      \(Int(sum("hits"))), wrong \(Int(sum("wrong"))), evicted under way \(Int(sum("unavailable"))), deleted \(Int(sum("removed")))"
        )
        for (index, report) in writers.enumerated() {
            let time = { (key: String) in Duration.seconds(report[key] ?? 0).formatted }
            let ratio = (report["worst"] ?? 0) / max(1e-9, report["median"] ?? 0)
            print(
                "puts of writer \(index)   \(Int(report["puts"] ?? 0)) of \(Format.bytes(SoakConversation.turnBytes)): median \(time("median")), p99 \(time("p99")), worst \(time("worst")) (\(rounded(ratio)) x median); first quarter \(time("first-quarter")), last \(time("last-quarter"))"
            )
        }
        let time = { (share: Double) in Duration.seconds(floor[Int(share * Double(floor.count - 1))]).formatted }
        print("the files alone    \(floor.count) of the same: median \(time(0.5)), p99 \(time(0.99)), worst \(time(1))")
        let amplification = Double(counters.appended + counters.copied) / Double(max(1, counters.appended))
        print(
            "write amplification \(rounded(amplification)): \(Format.bytes(counters.appended)) appended, \(Format.bytes(counters.copied)) copied by compaction"
        )
        print("verify             \(problems.isEmpty ? "sound" : "\(problems.count) problems")")
        for problem in problems.prefix(10) { print("  \(problem.kind.rawValue) \(problem.subject): \(problem.message)") }
        guard largest <= bound, sum("wrong") == 0, problems.isEmpty, sum("hits") > 0 else { throw ExitCode.failure }
    }
}

/// This program, run again with other arguments.
struct ChildProcess {
    private let process: pid_t
    private let output: String
    private let status = Status()

    private final class Status { var code: Int32? }

    init(_ arguments: [String], output: String) throws {
        self.output = output
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        let program = CommandLine.arguments[0]
        var arguments: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var process = pid_t()
        guard posix_spawnp(&process, program, &actions, nil, &arguments, environ) == 0 else {
            throw ValidationError("cannot start \(program)")
        }
        self.process = process
    }

    /// - Throws: when it has ended with an error.
    func hasEnded() throws -> Bool {
        if status.code != nil { return true }
        var code: Int32 = 0
        guard waitpid(process, &code, WNOHANG) == process else { return false }
        status.code = code
        guard code == 0 else { throw ValidationError("a process of the soak failed with status \(code)") }
        return true
    }

    /// The lines that it printed: a key and a number each.
    func report() throws -> [String: Double] {
        guard let file = fopen(output, "r") else { throw ValidationError("\(output) is missing") }
        defer { fclose(file) }
        var report: [String: Double] = [:]
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, Int32(line.count), file) != nil {
            let words = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                .split(separator: " ")
            if words.count == 2 { report[String(words[0])] = Double(words[1]) }
        }
        return report
    }
}
