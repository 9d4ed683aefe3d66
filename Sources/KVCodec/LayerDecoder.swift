import CKVKernels

/// Decodes one tensor of a layer from its parsed section.
struct LayerDecoder {
    let section: SectionView
    let geometry: LayerGeometry
    let elementType: ElementType
    let classes: TokenClasses
    let positions: PagePositions
    /// Tokens of the page that the layer holds.
    let held: Range<Int>

    /// Writes the tensor's `tokens` to `output`, which has room for exactly those.
    func decode(
        _ tensor: TensorKind, tokens: Range<Int>, to output: MutableTensorView, scratch: DecodeScratch
    ) throws(CodecError) {
        var index = section.parts.startIndex
        while index < section.parts.endIndex {
            let part = section.parts[index]
            let following = part.channelSet == .masked ? section.parts[index + 1] : nil
            index += following == nil ? 1 : 2
            guard part.tensor == tensor else { continue }
            let wanted = TokenSelection(classes, part.classes, held: held, range: tokens, scratch: scratch)
            guard !wanted.dense.isEmpty else { continue }
            if part.scheme == .exact {
                try decodeExact(part, wanted, to: output, scratch: scratch)
            } else {
                try decodeQuantized(part, following, wanted, tokens: tokens, to: output, scratch: scratch)
            }
        }
    }

    // MARK: - Exact parts

    private func decodeExact(
        _ part: PartView, _ wanted: TokenSelection, to output: MutableTensorView, scratch: DecodeScratch
    ) throws(CodecError) {
        let heads = geometry.keyValueHeads
        let headBytes = part.channels * wanted.all
        let planeBytes = heads * headBytes
        let maxima = try QuantizedPart.load(part.stream(.exponentMaxima), heads * part.channels, slot: .maxima, scratch)
        let room = scratch.bytes(.exactPlanes, elementType.byteCount * planeBytes)
        var planes: [UnsafePointer<UInt8>?] = []
        for plane in 0..<elementType.byteCount {
            guard let stream = part.stream(.exactPlane, plane: plane) else { throw .damaged("a plane is missing") }
            if stream.encoding == .raw, stream.bytes.count == planeBytes {
                planes.append(stream.bytes.bindMemory(to: UInt8.self).baseAddress)
            } else {
                let target = UnsafeMutableRawBufferPointer(rebasing: room[plane * planeBytes..<(plane + 1) * planeBytes])
                try scratch.sharedDecompressor().decompress(stream.bytes, encoding: stream.encoding, into: target)
                planes.append(UnsafePointer(target.bindMemory(to: UInt8.self).baseAddress))
            }
        }
        let tile = FourierPlan.laneCount
        let type = Int32(elementType.rawValue)
        let values = scratch.bytes(.values, tile * part.channels * elementType.byteCount)
        let rows = scratch.floats(.rows, tile * part.channels)
        for head in 0..<heads {
            let target = output.kernelHead(head)
            let headPlanes = planes.map { $0.map { $0 + head * headBytes } }
            let headMaxima = maxima.bindMemory(to: UInt8.self).baseAddress.map { $0 + head * part.channels }
            for first in stride(from: wanted.dense.lowerBound, to: wanted.dense.upperBound, by: tile) {
                let count = min(tile, wanted.dense.upperBound - first)
                kv_exact_merge(
                    type, part.channels, wanted.all, first, count, headPlanes, headMaxima, values.baseAddress)
                if output.elementType == elementType {
                    kv_copy_rows(target, wanted.targets(of: first), count, values.baseAddress)
                } else {
                    kv_load_contiguous(type, values.baseAddress, count * part.channels, rows)
                    kv_store_rows(target, wanted.targets(of: first), count, rows)
                }
            }
        }
    }

    // MARK: - Quantized parts

    private func decodeQuantized(
        _ part: PartView, _ following: PartView?, _ wanted: TokenSelection, tokens: Range<Int>, to output: MutableTensorView,
        scratch: DecodeScratch
    ) throws(CodecError) {
        let heads = geometry.keyValueHeads
        let dim = part.tensor == .key ? geometry.keyDim : geometry.valueDim
        let masks = part.channelSet == .masked ? try ChannelMasks(part, heads: heads, dim: dim, scratch: scratch) : nil
        let first = try QuantizedPart(
            part, heads: heads, tokens: wanted.all, channels: masks?.masked, second: false, scratch: scratch)
        let second = try following.map { following throws(CodecError) in
            try QuantizedPart(
                following, heads: heads, tokens: wanted.all, channels: masks?.unmasked, second: true, scratch: scratch)
        }
        var table: RotaryTable?
        if part.flags.contains(.unrotated), let rotary = geometry.rotary {
            table = scratch.rotaryTable(rotary, positions: positions, tokens: tokens)
        }
        let tiles = TileDecoder(first: first, second: second, dim: dim, rotary: table, scratch: scratch)
        for head in 0..<heads {
            tiles.decode(wanted, head: head, to: output.kernelHead(head), type: output.elementType)
        }
    }
}

/// Which tokens of a part are wanted, and where they go.
struct TokenSelection {
    /// Tokens of the part.
    let all: Int
    /// Wanted tokens, as indices among the part's.
    let dense: Range<Int>
    /// For each token of the part, its index in the range asked for; means nothing for tokens that are not wanted.
    private let targets: UnsafePointer<UInt32>

    /// Selects the held tokens of some classes.
    init(_ classes: TokenClasses, _ wanted: UInt8, held: Range<Int>, range: Range<Int>, scratch: DecodeScratch) {
        let targets = scratch.bytes(.targets, 4 * held.count).bindMemory(to: UInt32.self)
        var all = 0
        var (first, end) = (0, 0)
        for token in held where wanted >> classes.bytes[token] & 1 == 1 {
            targets[all] = UInt32(truncatingIfNeeded: token - range.lowerBound)
            all += 1
            if token < range.lowerBound { first = all }
            if token < range.upperBound { end = all }
        }
        self.all = all
        dense = first..<max(first, end)
        self.targets = UnsafePointer(targets.baseAddress.unsafelyUnwrapped)
    }

    /// The targets of the wanted tokens from one on.
    func targets(of first: Int) -> UnsafePointer<UInt32> { targets + first }
}

/// Per head, the channels that a mask names and the others: `[heads][count]` each.
struct ChannelMasks {
    let masked: UnsafePointer<UInt16>
    let unmasked: UnsafePointer<UInt16>

    init(_ part: PartView, heads: Int, dim: Int, scratch: DecodeScratch) throws(CodecError) {
        let stride = (dim + 7) / 8
        let bits = try QuantizedPart.load(part.stream(.mask), heads * stride, slot: .mask, scratch)
        let rest = dim - part.channels
        let channels = scratch.bytes(.channels, 2 * heads * dim).bindMemory(to: UInt16.self).baseAddress.unsafelyUnwrapped
        let masked = channels
        let unmasked = channels + heads * part.channels
        for head in 0..<heads {
            var (found, left) = (0, 0)
            for channel in 0..<dim {
                if bits[head * stride + channel / 8] >> (channel % 8) & 1 == 1 {
                    if found < part.channels { masked[head * part.channels + found] = UInt16(channel) }
                    found += 1
                } else {
                    if left < rest { unmasked[head * rest + left] = UInt16(channel) }
                    left += 1
                }
            }
            guard found == part.channels else {
                throw .damaged("a mask names \(found) channels where \(part.channels) belong")
            }
        }
        self.masked = UnsafePointer(masked)
        self.unmasked = UnsafePointer(unmasked)
    }
}
