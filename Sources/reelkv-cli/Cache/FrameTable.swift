import ReelKV
import Safetensors

/// A video's frames as a file tells them: `frame_offsets`, `frame_seconds`, and how many tokens a frame has.
enum FrameTable {
    static let offsets = "frame_offsets"
    static let seconds = "frame_seconds"
    /// Tokens of each frame, where they differ.
    static let counts = "frame_tokens"
    static let tokensPerFrame = "tokens_per_frame"

    /// The file's frames; none when it has no table.
    static func read(_ file: SafetensorsFile, tokenCount: Int) throws -> [VideoFrame] {
        guard file.tensors[offsets] != nil else { return [] }
        guard file.tensors[seconds] != nil else {
            throw Failure("\(file.path) has \(offsets) but no \(seconds): say when each frame is shown")
        }
        let starts = try file.int64s(offsets).map { Int($0) }
        let times = try file.floats(seconds)
        guard times.count == starts.count else {
            throw Failure("\(file.path): \(starts.count) \(offsets), but \(times.count) \(seconds)")
        }
        let counts = try tokenCounts(file, starts: starts)
        return try starts.indices.map { index in
            let start = starts[index]
            let count = counts[index]
            guard start >= 0, count >= 0, start <= tokenCount, count <= tokenCount - start,
                index == 0 || start >= starts[index - 1]
            else {
                throw Failure(
                    "\(file.path): frame \(index), \(count) tokens at \(start), is out of order or leaves the \(tokenCount) "
                        + "tokens"
                )
            }
            return VideoFrame(firstToken: start, tokenCount: count, seconds: Double(times[index]))
        }
    }

    private static func tokenCounts(_ file: SafetensorsFile, starts: [Int]) throws -> [Int] {
        if file.tensors[counts] != nil {
            let counts = try file.int64s(counts).map { Int($0) }
            guard counts.count == starts.count else {
                throw Failure("\(file.path): \(starts.count) \(offsets), but \(counts.count) \(Self.counts)")
            }
            return counts
        }
        guard let text = file.metadata[tokensPerFrame], let count = Int(text), count >= 0 else {
            throw Failure(
                "\(file.path) has \(offsets), but does not say how many tokens a frame has: write metadata "
                    + "'\(tokensPerFrame)', or a tensor '\(counts)'"
            )
        }
        return Array(repeating: count, count: starts.count)
    }

    /// The frames that lie wholly within `tokens`, counted from its start.
    static func cut(_ frames: [VideoFrame], to tokens: Range<Int>) -> [VideoFrame] {
        frames.filter { $0.firstToken >= tokens.lowerBound && $0.firstToken + $0.tokenCount <= tokens.upperBound }
            .map {
                VideoFrame(firstToken: $0.firstToken - tokens.lowerBound, tokenCount: $0.tokenCount, seconds: $0.seconds)
            }
    }
}
