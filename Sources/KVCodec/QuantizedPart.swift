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
    /// Whether each token has its own groups, along its channels.
    let runsAlongChannels: Bool
    /// The channels that the columns are, `[heads][columns]`; nil when all in order.
    let channels: UnsafePointer<UInt16>?
    private let codes: UnsafeRawBufferPointer
    /// `[heads][groups][columns]` each.
    private let scales: UnsafeMutablePointer<Float>
    private let means: UnsafeMutablePointer<Float>

    private var groups: Int { (rows + group - 1) / group }
    private var headCodeBytes: Int { GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits) * columns }

    /// Reads the part's streams. `second` chooses the second set of buffers, for the unmasked part beside a masked one.
    init(
        _ part: PartView, heads: Int, tokens: Int, channels: UnsafePointer<UInt16>?, second: Bool, scratch: DecodeScratch
    ) throws(CodecError) {
        let along = part.flags.contains(.alongChannels)
        scheme = Int32(part.scheme.rawValue)
        codeBits = part.codeBits
        group = part.group
        fourier = part.flags.contains(.fourier) ? scratch.fourierPlan(length: part.channels) : nil
        rows = along ? part.channels : tokens
        columns = along ? tokens : part.channels
        self.channels = channels
        runsAlongChannels = along
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
        let anchors = try Self.load(part.stream(.anchors), 2 * heads, slot: .anchors, scratch)
        let table = scratch.floats(.scaleTable, 256)
        let units = scratch.floats(.units, columns)
        let prediction = scratch.bytes(.prediction, columns).bindMemory(to: UInt8.self).baseAddress
        guard let codeBase = codes.bindMemory(to: UInt8.self).baseAddress, let meanBase = means.baseAddress else {
            throw .damaged("a part of no tokens")
        }
        for head in 0..<heads {
            let (anchor, steps) = (anchors[2 * head], anchors[2 * head + 1])
            guard steps <= 4 else { throw .damaged("\(steps) is no step of scale codes") }
            // Heads are mostly alike.
            if head == 0 || anchor != anchors[2 * head - 2] || steps != anchors[2 * head - 1] {
                kv_scale_values(Int32(Int8(bitPattern: anchor)), Int32(steps), table)
            }
            let headCodes = codeBase + head * perHead
            kv_scales_restore(headCodes, groups, columns, prediction)
            kv_mean_units(headCodes, groups, columns, table, Int32(part.meanShift), units)
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

    /// Writes the values of `count` rows of a head's group to `out` `[count]`, rows `stride` floats apart.
    /// - Parameter first: the first of the rows, counted from the group's; a multiple of 8.
    func decode(head: Int, group: Int, first: Int, count: Int, to out: UnsafeMutablePointer<Float>, stride: Int) {
        let metadata = (head * groups + group) * columns
        kv_dequantize_group(
            scheme, Int32(codeBits), codes(head, group, first), count, columns, scales + metadata, means + metadata, out, stride)
    }

    /// Writes the same values, at most `FourierPlan.laneCount` rows, as columns of lanes.
    func decodeLanes(
        head: Int, group: Int, first: Int, count: Int, channels: UnsafePointer<UInt16>?, to lanes: UnsafeMutablePointer<Float>
    ) {
        let metadata = (head * groups + group) * columns
        kv_dequantize_lanes(
            scheme, Int32(codeBits), codes(head, group, first), count, columns, scales + metadata, means + metadata, channels,
            lanes)
    }

    /// Whether a group has so few values that they are rounded once and then chosen from.
    var hasFewLevels: Bool { codeBits <= 2 }

    /// Writes the values of `count` rows of a head's group, as `decode` does, to the places of a tile of a 16-bit type, turned by
    /// `rotary`.
    func decode16(
        as type: ElementType, head: Int, group: Int, first: Int, count: Int, to places: UnsafePointer<kv_rows16>,
        rotary: RotaryTable?
    ) {
        let metadata = (head * groups + group) * columns
        let (scales, means) = (scales + metadata, means + metadata)
        let (type, bits) = (Int32(type.rawValue), Int32(codeBits))
        guard let rotary else {
            kv_dequantize_group16(type, scheme, bits, codes(head, group, first), count, columns, scales, means, places)
            return
        }
        rotary.withTables { cosines, sines in
            kv_dequantize_rotated16(
                type, scheme, bits, codes(head, group, first), count, columns, scales, means, cosines, sines, places)
        }
    }

    /// Writes values as `decodeAlong` does, to the places of a tile of a 16-bit type.
    func decodeAlong16(as type: ElementType, head: Int, first: Int, count: Int, to places: UnsafePointer<kv_rows16>) {
        let metadata = head * groups * columns + first
        kv_dequantize_along16(
            Int32(type.rawValue), scheme, Int32(codeBits), codes(head, 0, 0) + first, columns, count, rows, group,
            scales + metadata, means + metadata, places)
    }

    /// Where groups run along channels: writes the values of `count` tokens of a head from the `first` on to `out`
    /// `[count][rows]`.
    func decodeAlong(head: Int, first: Int, count: Int, to out: UnsafeMutablePointer<Float>) {
        let metadata = head * groups * columns + first
        kv_dequantize_along(
            scheme, Int32(codeBits), codes(head, 0, 0) + first, columns, count, rows, group, scales + metadata, means + metadata,
            out)
    }

    private func codes(_ head: Int, _ group: Int, _ first: Int) -> UnsafePointer<UInt8> {
        let offset = head * headCodeBytes + (group * self.group + first) * codeBits / 8 * columns
        return codes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self) + offset
    }
}
