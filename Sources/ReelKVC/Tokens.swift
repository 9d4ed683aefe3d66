import CReelKV
import KVCodec
import ReelKV

typealias Bytes32 = (
    UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8,
    UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8
)

extension Digest {
    init(_ bytes: Bytes32) {
        self = Swift.withUnsafeBytes(of: bytes) { Digest(bytes: $0) ?? .zero }
    }
}

extension TokenSequence {
    /// Tokens that a caller passes.
    init(_ pointer: UnsafePointer<reelkv_tokens>?, _ name: String) throws {
        let tokens = try reelkv_tokens(pointer, name)
        let ids = try elements(tokens.ids, tokens.count, "\(name)->ids", atMost: Self.countMax)
        let spans = try elements(tokens.media, tokens.media_count, "\(name)->media", atMost: ids.count)
        try self.init(
            ids: Array(ids),
            media: try spans.enumerated().map { try MediaSpan($1, "\(name)->media[\($0)]") },
            positions: try Self.positions(tokens, name))
    }

    private static func positions(_ tokens: reelkv_tokens, _ name: String) throws -> [[Int32]]? {
        guard let positions = tokens.positions else { return nil }
        guard tokens.position_streams == 1 || tokens.position_streams == 3 else {
            throw Failure.invalid("'\(name)->position_streams' must be 1, or 3 for M-RoPE, it is \(tokens.position_streams)")
        }
        return (0..<Int(tokens.position_streams)).map { stream in
            Array(UnsafeBufferPointer(start: positions + stream * tokens.count, count: tokens.count))
        }
    }

    /// A copy in one block of memory, which the caller lets go of.
    func copyForCaller() throws -> UnsafeMutablePointer<reelkv_tokens> {
        let mediaStart = MemoryLayout<reelkv_tokens>.stride
        let idStart = mediaStart + media.count * MemoryLayout<reelkv_media_span>.stride
        let positionStart = idStart + 4 * count
        let streams = positions?.count ?? 0
        let memory = try allocate(positionStart + 4 * streams * count)
        let spans = (memory + mediaStart).assumingMemoryBound(to: reelkv_media_span.self)
        for (index, span) in media.enumerated() { spans[index] = reelkv_media_span(span) }
        (memory + idStart).copyMemory(from: ids, byteCount: 4 * count)
        for (stream, values) in (positions ?? []).enumerated() {
            (memory + positionStart + 4 * stream * count).copyMemory(from: values, byteCount: 4 * count)
        }
        let tokens = memory.assumingMemoryBound(to: reelkv_tokens.self)
        tokens.pointee = reelkv_tokens(
            struct_size: MemoryLayout<reelkv_tokens>.stride,
            ids: count == 0 ? nil : UnsafePointer((memory + idStart).assumingMemoryBound(to: Int32.self)), count: count,
            media: media.isEmpty ? nil : UnsafePointer(spans), media_count: media.count,
            positions: streams == 0 ? nil : UnsafePointer((memory + positionStart).assumingMemoryBound(to: Int32.self)),
            position_streams: UInt32(streams))
        return tokens
    }
}

extension MediaSpan {
    fileprivate init(_ span: reelkv_media_span, _ name: String) throws {
        self.init(
            digest: Digest(span.digest), firstToken: try number(span.first_token, "\(name).first_token"),
            count: try number(span.count, "\(name).count"), mediaOffset: try number(span.media_offset, "\(name).media_offset"))
    }
}

extension reelkv_media_span {
    fileprivate init(_ span: MediaSpan) {
        self.init()
        span.digest.withUnsafeBytes { bytes in withUnsafeMutableBytes(of: &digest) { $0.copyMemory(from: bytes) } }
        first_token = UInt64(span.firstToken)
        count = UInt64(span.count)
        media_offset = UInt64(span.mediaOffset)
    }
}
