import FoundationEssentials

/// A trace of requests to a KV cache, in the order of time. Blocks are numbered anew, one number for each prefix: a block is what it is
/// by all that comes before it too.
package struct Trace: Sendable {
    package struct Request: Sendable {
        /// From the first block on.
        package var blocks: [Int]
    }

    package private(set) var requests: [Request] = []
    /// By block: the one before it, or -1; how many there are before; the trace's own id; and whether it is only ever a request's last,
    /// incomplete block.
    package private(set) var parents: [Int] = []
    package private(set) var depths: [Int] = []
    package private(set) var ids: [Int64] = []
    package private(set) var isPartial: [Bool] = []

    /// Different blocks.
    package var distinctBlocks: Int { parents.count }
    /// Blocks of all requests together.
    package var references: Int { requests.reduce(0) { $0 + $1.blocks.count } }

    /// Tokens of a whole block.
    package static let blockTokens = 512
    private static let blocksMax = 1 << 20

    private struct Line: Decodable {
        var timestamp: Double
        var inputLength: Int
        var hashIDs: [Int64]

        enum CodingKeys: String, CodingKey {
            case timestamp
            case inputLength = "input_length"
            case hashIDs = "hash_ids"
        }
    }

    private struct Link: Hashable {
        var parent: Int
        var id: Int64
    }

    /// Parses JSON lines with `timestamp`, `input_length` (tokens) and `hash_ids` (one for each block of 512 tokens, the last of which may be
    /// incomplete).
    ///
    /// - Throws: `TraceError`, with the line's number.
    package init(jsonLines bytes: [UInt8]) throws {
        let decoder = JSONDecoder()
        var links: [Link: Int] = [:]
        var time = -Double.infinity
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            if line.allSatisfy({ $0 == 0x20 || $0 == 0x0D || $0 == 0x09 }) { continue }
            let parsed: Line
            do {
                parsed = try decoder.decode(Line.self, from: Data(line))
            } catch {
                throw TraceError(
                    line: index + 1,
                    message: "is no JSON object with the numbers timestamp and input_length and the list hash_ids")
            }
            try Self.check(parsed, after: time, line: index + 1)
            time = parsed.timestamp
            add(parsed, &links)
        }
        guard !requests.isEmpty else { throw TraceError(line: nil, message: "the trace holds no request") }
    }

    private static func check(_ line: Line, after time: Double, line number: Int) throws {
        guard line.timestamp >= time else {
            throw TraceError(line: number, message: "has an earlier timestamp than the line before")
        }
        let blocks = line.hashIDs.count
        guard blocks <= blocksMax else { throw TraceError(line: number, message: "has more than \(blocksMax) hash_ids") }
        guard line.inputLength >= 0, line.inputLength <= blocks * blockTokens,
            line.inputLength > (blocks - 1) * blockTokens
        else {
            throw TraceError(
                line: number,
                message: "has \(blocks) hash_ids for \(line.inputLength) tokens, where each stands for \(blockTokens)")
        }
    }

    private mutating func add(_ line: Line, _ links: inout [Link: Int]) {
        var request = Request(blocks: [])
        request.blocks.reserveCapacity(line.hashIDs.count)
        for (depth, id) in line.hashIDs.enumerated() {
            let link = Link(parent: request.blocks.last ?? -1, id: id)
            let block = links[link] ?? parents.count
            if block == parents.count {
                links[link] = block
                parents.append(link.parent)
                depths.append(depth)
                ids.append(id)
                isPartial.append(true)
            }
            let isLast = depth == line.hashIDs.count - 1
            if !isLast || line.inputLength % Self.blockTokens == 0 { isPartial[block] = false }
            request.blocks.append(block)
        }
        requests.append(request)
    }
}

/// What is wrong with a trace.
package struct TraceError: Error, CustomStringConvertible {
    package var line: Int?
    package var message: String

    package var description: String { line.map { "line \($0) \(message)" } ?? message }
}
