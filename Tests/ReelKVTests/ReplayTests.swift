import ReelKV
import Testing
import TraceReplay

/// A cache of blocks that evicts leaf first, written for being obviously right: every eviction looks at all leaves.
private struct PlainCache {
    let trace: Trace
    let capacity: Int
    /// Whether to evict what is used next furthest ahead, rather than what was used longest ago.
    let isClairvoyant: Bool
    private var stored: Set<Int> = []
    private var lastUse: [Int: Int] = [:]

    init(_ trace: Trace, capacity: Int, isClairvoyant: Bool) {
        self.trace = trace
        self.capacity = capacity
        self.isClairvoyant = isClairvoyant
    }

    mutating func hits() -> Int {
        trace.requests.indices.reduce(0) { $0 + run($1) }
    }

    private func nextUse(_ block: Int, after request: Int) -> Int {
        trace.requests[(request + 1)...].firstIndex { $0.blocks.contains(block) } ?? .max
    }

    private mutating func run(_ request: Int) -> Int {
        let blocks = trace.requests[request].blocks
        let hits = blocks.prefix { stored.contains($0) }.count
        for block in blocks { lastUse[block] = request }
        for block in blocks[hits...] {
            if stored.count >= capacity {
                let parents = Set(stored.map { trace.parents[$0] })
                let leaves = stored.filter { !parents.contains($0) && lastUse[$0] != request }
                // the order of leaves as unlike as these, by depth where use does not tell
                let values = leaves.map { leaf in
                    (isClairvoyant ? nextUse(leaf, after: request) : -(lastUse[leaf] ?? 0), trace.depths[leaf], leaf)
                }
                guard let victim = values.max(by: <) else { return hits }
                if isClairvoyant, victim.0 <= nextUse(block, after: request) { return hits }
                stored.remove(victim.2)
            }
            stored.insert(block)
        }
        return hits
    }
}

@Suite("Replays of a trace", .timeLimit(.minutes(20)))
struct ReplayTests {
    private static let trace: Trace = {
        let path = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        do { return try Trace(jsonLines: try readFile("/\(path)/Fixtures/trace.jsonl")) } catch { fatalError("\(error)") }
    }()

    private func hits(_ policy: EvictionPolicy, _ capacity: Int) throws -> Int {
        let folder = TemporaryFolder()
        return try Replay.run(Self.trace, policy: policy, capacity: capacity, in: folder.path + "/store").hits
    }

    @Test("lru of the engine hits what a plain simulation does, and adaptive no less", arguments: [76, 190, 380, 760])
    func engine(capacity: Int) throws {
        var plain = PlainCache(Self.trace, capacity: capacity, isClairvoyant: false)
        let lru = try hits(.lru, capacity)
        #expect(lru == plain.hits())
        #expect(try hits(.adaptive, capacity) >= lru)
    }

    @Test("The optimum is that of a plain simulation", arguments: [76, 380])
    func optimum(capacity: Int) {
        var plain = PlainCache(Self.trace, capacity: capacity, isClairvoyant: true)
        let optimum = ClairvoyantCache.hits(of: Self.trace, capacity: capacity)
        #expect(optimum == plain.hits())
    }

    @Test("No policy beats the optimum, and with room for all each reaches it", arguments: EvictionPolicy.allCases)
    func bounds(policy: EvictionPolicy) throws {
        #expect(try hits(policy, 190) <= ClairvoyantCache.hits(of: Self.trace, capacity: 190))
        let all = Self.trace.distinctBlocks
        #expect(try hits(policy, all) == ClairvoyantCache.hits(of: Self.trace, capacity: all))
    }

    @Test(
        "A trace that is none is refused, and the line named",
        arguments: [
            ("{}", 1), (#"{"timestamp":0,"input_length":512,"hash_ids":[1]}"# + "\nnone", 2),
            (#"{"timestamp":0,"input_length":513,"hash_ids":[1]}"#, 1),
            (#"{"timestamp":0,"input_length":512,"hash_ids":[1,2]}"#, 1),
            (#"{"timestamp":0,"input_length":-1,"hash_ids":[]}"#, 1), (#"{"timestamp":0,"input_length":1,"hash_ids":["a"]}"#, 1),
            (
                #"{"timestamp":5,"input_length":512,"hash_ids":[1]}"# + "\n\n"
                    + #"{"timestamp":4,"input_length":512,"hash_ids":[1]}"#,
                3
            ),
        ])
    func badTraces(text: String, line: Int) {
        #expect { _ = try Trace(jsonLines: Array(text.utf8)) } throws: { ($0 as? TraceError)?.line == line }
    }
}
