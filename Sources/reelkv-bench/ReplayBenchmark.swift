import ArgumentParser
import Dispatch
import ReelKV
import Rendering
import Reports
import TraceReplay
import Locking

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Eviction policies on a recorded trace, beside the best that a cache of that size could do.
struct ReplayBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Replays a trace of requests through the index and its eviction policies, without page images.",
        discussion: """
            The trace has a JSON object on each line, with timestamp, input_length in tokens, and hash_ids, one for each block of 512 \
            tokens. Each request looks its longest prefix up, and enters the blocks that are missing. A block is a page; the hit rate is \
            the share of all requests' blocks that were stored, prefixes only. The optimum knows the future (Belady), and evicts leaf \
            first too.
            """)

    @Argument(help: "The trace, JSON lines.", completion: .file(extensions: ["jsonl"])) var trace: String
    @Option(
        help: ArgumentHelp(
            "A policy to replay: \(EvictionPolicy.allCases.map(\.name).joined(separator: ", ")). May be given more than once; all by default."
        )
    )
    var policy: [String] = []
    @Option(
        help: ArgumentHelp(
            "Room, in blocks, or as a share of the trace's different blocks. May be given more than once; 2%, 5%, 10% and 25% by default.",
            valueName: "blocks|percent"))
    var capacity: [String] = []
    @Flag(help: "Print JSON.") var json = false

    private struct Cell: Sendable {
        var policy: EvictionPolicy
        var row: Int
        var capacity: Int
    }

    struct Row: Encodable {
        var capacity: String
        var blocks: Int
        var optimum: Double
        var policies: [String: Result]
    }

    struct Result: Encodable {
        var hitRate: Double
        /// Of what the optimum gains over `lru`; nil where nothing is to be gained, or `lru` was not asked for.
        var shareOfGap: Double?
        var evictions: Int
        var microsecondsPerRequest: Double

        enum CodingKeys: String, CodingKey {
            case hitRate = "hit_rate"
            case shareOfGap = "share_of_gap"
            case evictions
            case microsecondsPerRequest = "microseconds_per_request"
        }
    }

    func run() throws {
        let trace = try readTrace()
        let policies = try chosenPolicies()
        let capacities = try (capacity.isEmpty ? ["2%", "5%", "10%", "25%"] : capacity).map {
            (name: $0, blocks: try Self.blocks($0, of: trace.distinctBlocks))
        }
        let progress = ProgressBar(
            "replay", totalCount: trace.requests.count * capacities.count * (policies.count + 1), unit: .count("requests"))
        let cells = capacities.indices.flatMap { row in
            policies.map { Cell(policy: $0, row: row, capacity: capacities[row].blocks) }
        }
        let outcomes = try replay(cells, of: trace, progress)
        var rows: [Row] = []
        for (index, capacity) in capacities.enumerated() {
            let optimum = ClairvoyantCache.hits(of: trace, capacity: capacity.blocks)
            progress.advance(by: trace.requests.count)
            let found = zip(cells, outcomes).filter { $0.0.row == index }.map { ($0.0.policy, $0.1) }
            rows.append(row(capacity.name, capacity.blocks, optimum: optimum, found, of: trace))
        }
        progress.finish()
        if json { print(try JSONOutput.text(rows, pretty: true), terminator: "") } else { show(rows, policies, of: trace) }
    }

    // MARK: - What was asked for

    private func readTrace() throws -> Trace {
        guard let file = fopen(trace, "r") else {
            throw ValidationError("cannot read \(trace): \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
        guard ferror(file) == 0 else { throw ValidationError("cannot read \(trace): \(String(cString: strerror(errno)))") }
        do { return try Trace(jsonLines: bytes) } catch let error as TraceError { throw ValidationError("\(trace): \(error)") }
    }

    private func chosenPolicies() throws -> [EvictionPolicy] {
        if policy.isEmpty { return [.fifo, .lru, .lfu, .cost, .adaptive] }
        return try policy.map { name in
            guard let policy = EvictionPolicy(name: name) else {
                let names = EvictionPolicy.allCases.map(\.name).joined(separator: ", ")
                throw ValidationError("no policy '\(name)': there are \(names)")
            }
            return policy
        }
    }

    /// "2%" of all blocks, or a number of them.
    private static func blocks(_ text: String, of all: Int) throws -> Int {
        if text.hasSuffix("%"), let percent = Double(text.dropLast()), percent > 0, percent <= 100 {
            return max(1, Int((Double(all) * percent / 100).rounded()))
        }
        guard let blocks = Int(text), blocks > 0 else {
            throw ValidationError("--capacity takes a number of blocks or a percentage, like 4096 or 2%, not '\(text)'")
        }
        return blocks
    }

    // MARK: - Replaying

    /// Each in a store of its own, several at once.
    private func replay(_ cells: [Cell], of trace: Trace, _ progress: ProgressBar) throws -> [Replay.Outcome] {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let outcomes = Mutex<[Int: Swift.Result<Replay.Outcome, any Error>]>([:])
        DispatchQueue.concurrentPerform(iterations: cells.count) { index in
            let cell = cells[index]
            let outcome = Swift.Result {
                try Replay.run(trace, policy: cell.policy, capacity: cell.capacity, in: folder.path + "/\(index)") {
                    progress.advance(by: 1)
                }
            }
            outcomes.withLock { $0[index] = outcome }
        }
        return try outcomes.withLock { outcomes in try cells.indices.compactMap { try outcomes[$0]?.get() } }
    }

    private func row(
        _ name: String, _ blocks: Int, optimum: Int, _ found: [(EvictionPolicy, Replay.Outcome)], of trace: Trace
    ) -> Row {
        let references = Double(max(1, trace.references))
        let lru = found.first { $0.0 == .lru }?.1.hits
        var row = Row(capacity: name, blocks: blocks, optimum: Double(optimum) / references, policies: [:])
        for (policy, outcome) in found {
            row.policies[policy.name] = Result(
                hitRate: Double(outcome.hits) / references,
                shareOfGap: lru.flatMap { $0 < optimum ? Double(outcome.hits - $0) / Double(optimum - $0) : nil },
                evictions: outcome.evictions,
                microsecondsPerRequest: outcome.duration.seconds * 1e6 / Double(trace.requests.count))
        }
        return row
    }

    // MARK: - Showing

    private func show(_ rows: [Row], _ policies: [EvictionPolicy], of trace: Trace) {
        print("\(trace.requests.count) requests for \(trace.references) blocks, \(trace.distinctBlocks) of them different")
        var table = TextTable(
            .right("CAPACITY"), .right("BLOCKS"), .left("POLICY"), .right("HIT RATE"), .right("OF GAP"), .right("EVICTIONS"),
            .right("µs/REQUEST"))
        for row in rows {
            for policy in policies {
                guard let result = row.policies[policy.name] else { continue }
                table.append(
                    row.capacity, "\(row.blocks)", policy.name, Self.rate(result.hitRate),
                    result.shareOfGap.map { "\(Int(($0 * 100).rounded())) %" } ?? "-", "\(result.evictions)",
                    rounded(result.microsecondsPerRequest))
            }
            table.append(row.capacity, "\(row.blocks)", "optimum", Self.rate(row.optimum))
        }
        print(table.text(), terminator: "")
    }

    /// Four decimals.
    private static func rate(_ value: Double) -> String {
        let digits = String(Int((value * 10_000).rounded()))
        let padded = String(repeating: "0", count: max(0, 5 - digits.count)) + digits
        return padded.dropLast(4) + "." + padded.suffix(4)
    }
}
