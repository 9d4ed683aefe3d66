import KVCodec
import ReelKV
import Rendering
import Safetensors

/// The small tensors and metadata that say which tokens an exported cache holds.
struct ExportedTokens {
    private var ids: [Int32]
    /// Index within its media of each placeholder, -1 for text; nil where an import counts the same.
    private var mediaOffsets: [Int64]?
    private var digests: [Digest] = []
    private let positions: [[Int32]]?
    private let frames: [VideoFrame]

    init(_ tokens: TokenSequence, frames: [VideoFrame]) {
        ids = tokens.ids
        positions = tokens.positions
        self.frames = frames
        var offsets = Array(repeating: Int64(-1), count: tokens.count)
        var next: [Int] = []
        var isCounted = true
        for span in tokens.media {
            let known = digests.firstIndex(of: span.digest)
            let ordinal = known ?? digests.count
            if known == nil {
                digests.append(span.digest)
                next.append(0)
            }
            isCounted = isCounted && next[ordinal] == span.mediaOffset
            next[ordinal] = span.mediaOffset + span.count
            for index in span.range {
                ids[index] = -1 - Int32(ordinal)
                offsets[index] = Int64(span.mediaOffset + index - span.firstToken)
            }
        }
        mediaOffsets = isCounted ? nil : offsets
    }

    private var haveEqualCounts: Bool { Set(frames.map(\.tokenCount)).count == 1 }

    var tensors: [TensorDeclaration] {
        var tensors = [TensorDeclaration(CacheTokens.Name.ids, .int32, shape: [1, ids.count])]
        if let positions {
            tensors.append(
                TensorDeclaration(
                    CacheTokens.Name.positions, .int32,
                    shape: positions.count == 1 ? [1, ids.count] : [positions.count, 1, ids.count]))
        }
        if mediaOffsets != nil {
            tensors.append(TensorDeclaration(CacheTokens.Name.mediaOffsets, .int64, shape: [1, ids.count]))
        }
        guard !frames.isEmpty else { return tensors }
        tensors.append(TensorDeclaration(FrameTable.offsets, .int64, shape: [frames.count]))
        tensors.append(TensorDeclaration(FrameTable.seconds, .float32, shape: [frames.count]))
        if !haveEqualCounts { tensors.append(TensorDeclaration(FrameTable.counts, .int64, shape: [frames.count])) }
        return tensors
    }

    var metadata: [String: String] {
        var metadata: [String: String] = [:]
        if !digests.isEmpty {
            metadata[CacheTokens.Name.mediaDigests] = "[" + digests.map { "\"\($0.hex)\"" }.joined(separator: ", ") + "]"
        }
        if haveEqualCounts { metadata[FrameTable.tokensPerFrame] = "\(frames[0].tokenCount)" }
        return metadata
    }

    func write(to writer: SafetensorsWriter) throws {
        try write(ids.map(\.littleEndian), to: CacheTokens.Name.ids, writer)
        if let positions { try write(positions.joined().map(\.littleEndian), to: CacheTokens.Name.positions, writer) }
        if let mediaOffsets { try write(mediaOffsets.map(\.littleEndian), to: CacheTokens.Name.mediaOffsets, writer) }
        guard !frames.isEmpty else { return }
        try write(frames.map { Int64($0.firstToken).littleEndian }, to: FrameTable.offsets, writer)
        try write(frames.map { Float($0.seconds).bitPattern.littleEndian }, to: FrameTable.seconds, writer)
        if !haveEqualCounts { try write(frames.map { Int64($0.tokenCount).littleEndian }, to: FrameTable.counts, writer) }
    }

    private func write<Value: BitwiseCopyable>(_ values: [Value], to name: String, _ writer: SafetensorsWriter) throws {
        try values.withUnsafeBytes { try writer.write($0, to: name) }
    }
}
