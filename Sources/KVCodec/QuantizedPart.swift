import CKVKernels

/// A quantized part made ready to decode: its codes, and the scale and mean of every group.
struct QuantizedPart {
    let scheme: Int32
    let codeBits: Int
    let group: Int
    let fourier: FourierPlan?
    /// Rows and columns of a head's matrix: tokens and channels, or the other way round when groups run along channels.
    let rows: Int
    let columns: Int
    /// Per head, the channels of the block that the columns go to; nil when all in order.
    let channels: [[UInt16]]?
    private let codes: UnsafeRawBufferPointer
    /// `[heads][groups][columns]` each.
    private let scales: UnsafeMutablePointer<Float>
    private let means: UnsafeMutablePointer<Float>

    private var groups: Int { (rows + group - 1) / group }
    private var headCodeBytes: Int { GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits) * columns }

    /// Reads the part's streams. `second` chooses the second set of buffers, for the unmasked part beside a masked one.
    init(
        _ part: PartView, heads: Int, tokens: Int, channels: [[UInt16]]?, second: Bool, scratch: DecodeScratch
    ) throws(CodecError) {
        let along = part.flags.contains(.alongChannels)
        scheme = Int32(part.scheme.rawValue)
        codeBits = part.codeBits
        group = part.group
        fourier = part.flags.contains(.fourier) ? scratch.fourierPlan(length: part.channels) : nil
        rows = along ? part.channels : tokens
        columns = along ? tokens : part.channels
        self.channels = channels
        let groups = (rows + group - 1) / group
        let codeBytes = GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits) * columns * heads
        codes = try Self.load(part.stream(.codes), codeBytes, slot: second ? .codesB : .codesA, scratch)
        let count = heads * groups * columns
        scales = scratch.floats(second ? .scalesB : .scalesA, count)
        means = scratch.floats(second ? .offsetsB : .offsetsA, count)
        try restoreMetadata(part, heads: heads, scratch: scratch)
    }

    /// The bytes of a stream: in the image when they are raw there, else decompressed into `slot`.
    static func load(
        _ stream: StreamView?, _ byteCount: Int, slot: DecodeScratch.Slot, _ scratch: DecodeScratch
    ) throws(CodecError) -> UnsafeRawBufferPointer {
        guard let stream else { throw .damaged("a stream is missing") }
        if stream.encoding == .raw {
            guard stream.bytes.count == byteCount else {
                throw .damaged("a raw stream has \(stream.bytes.count) bytes where \(byteCount) belong")
            }
            return stream.bytes
        }
        return UnsafeRawBufferPointer(try copy(stream, byteCount, slot: slot, scratch))
    }

    /// The bytes of a stream, in `slot`, to be changed in place.
    static func copy(
        _ stream: StreamView?, _ byteCount: Int, slot: DecodeScratch.Slot, _ scratch: DecodeScratch
    ) throws(CodecError) -> UnsafeMutableRawBufferPointer {
        guard let stream else { throw .damaged("a stream is missing") }
        let buffer = scratch.bytes(slot, byteCount)
        try scratch.sharedDecompressor().decompress(stream.bytes, encoding: stream.encoding, into: buffer)
        return buffer
    }

    private func restoreMetadata(_ part: PartView, heads: Int, scratch: DecodeScratch) throws(CodecError) {
        let perHead = groups * columns
        let codes = try Self.copy(part.stream(.scales), heads * perHead, slot: .scaleCodes, scratch)
        let means = scratch.bytes(.means, heads * perHead * 4).bindMemory(to: Int32.self)
        try restoreMeans(part, into: means, scratch: scratch)
        var anchors = [UInt8](repeating: 0, count: 2 * heads)
        let anchorBytes = try Self.load(part.stream(.anchors), 2 * heads, slot: .meanPlane, scratch)
        anchors.withUnsafeMutableBytes { $0.copyMemory(from: anchorBytes) }
        var table = [Float](repeating: 0, count: 256)
        var prediction = [UInt8](repeating: 0, count: columns)
        var units = [Float](repeating: 0, count: columns)
        guard let codeBase = codes.bindMemory(to: UInt8.self).baseAddress, let meanBase = means.baseAddress else {
            throw .damaged("a part of no tokens")
        }
        for head in 0..<heads {
            let steps = anchors[2 * head + 1]
            guard steps <= 4 else { throw .damaged("\(steps) is no step of scale codes") }
            kv_scale_values(Int32(Int8(bitPattern: anchors[2 * head])), Int32(steps), &table)
            let headCodes = codeBase + head * perHead
            kv_scales_restore(headCodes, groups, columns, &prediction)
            kv_mean_units(headCodes, groups, columns, table, Int32(part.meanShift), &units)
            kv_means_restore(meanBase + head * perHead, groups, columns)
            kv_expand_metadata(
                headCodes, meanBase + head * perHead, groups, columns, table, units, scales + head * perHead,
                self.means + head * perHead)
        }
    }

    private func restoreMeans(
        _ part: PartView, into means: UnsafeMutableBufferPointer<Int32>, scratch: DecodeScratch
    ) throws(CodecError) {
        means.update(repeating: 0)
        for plane in 0..<part.meanPlanes {
            let bytes = try Self.load(part.stream(.means, plane: plane), means.count, slot: .meanPlane, scratch)
            kv_add_plane(bytes.baseAddress, means.count, Int32(8 * plane), means.baseAddress)
        }
    }

    /// Writes the values of one group of a head to `out`, rows `stride` floats apart.
    func decode(head: Int, group index: Int, to out: UnsafeMutablePointer<Float>, stride: Int) {
        let count = min(group, rows - index * group)
        let from = codes.baseAddress.unsafelyUnwrapped + head * headCodeBytes + index * (group * codeBits / 8) * columns
        let metadata = (head * groups + index) * columns
        kv_dequantize_group(
            scheme, Int32(codeBits), from, count, columns, scales + metadata, means + metadata, out, stride)
    }
}
