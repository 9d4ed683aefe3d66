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
            let all = classes.tokens(of: part.classes, in: held)
            let wanted = TokenSelection(all: all, range: tokens)
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
        let chunk = 32
        let values = scratch.bytes(.values, chunk * part.channels * elementType.byteCount)
        let rows = scratch.floats(.rows, chunk * part.channels)
        for head in 0..<heads {
            let headPlanes = planes.map { $0.map { $0 + head * headBytes } }
            let headMaxima = maxima.bindMemory(to: UInt8.self).baseAddress.map { $0 + head * part.channels }
            for first in stride(from: wanted.dense.lowerBound, to: wanted.dense.upperBound, by: chunk) {
                let count = min(chunk, wanted.dense.upperBound - first)
                kv_exact_merge(
                    Int32(elementType.rawValue), part.channels, wanted.all, first, count, headPlanes, headMaxima,
                    values.baseAddress)
                wanted.withTargets(first - wanted.dense.lowerBound, count) { list in
                    if output.elementType == elementType {
                        kv_copy_rows(output.kernelHead(head), list.baseAddress, count, values.baseAddress)
                    } else {
                        kv_load_contiguous(Int32(elementType.rawValue), values.baseAddress, count * part.channels, rows)
                        kv_store_rows(output.kernelHead(head), list.baseAddress, count, rows)
                    }
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
        let masks = part.channelSet == .masked ? try maskedChannels(part, dim: dim, scratch: scratch) : nil
        var ready = [
            try QuantizedPart(
                part, heads: heads, tokens: wanted.all, channels: masks?.masked, second: false, scratch: scratch)
        ]
        if let following {
            ready.append(
                try QuantizedPart(
                    following, heads: heads, tokens: wanted.all, channels: masks?.unmasked, second: true, scratch: scratch))
        }
        var table: RotaryTable?
        if part.flags.contains(.unrotated), let rotary = geometry.rotary {
            table = scratch.rotaryTable(rotary, positions: positions, tokens: tokens)
        }
        if part.flags.contains(.alongChannels) {
            decodeAlongChannels(ready[0], dim: dim, table, wanted, to: output, scratch: scratch)
            return
        }
        let block = scratch.floats(.block, part.group * dim)
        let columns = scratch.floats(.columns, part.group * dim)
        for head in 0..<heads {
            for group in wanted.dense.lowerBound / part.group...(wanted.dense.upperBound - 1) / part.group {
                let first = group * part.group
                let count = min(part.group, wanted.all - first)
                for part in ready {
                    decode(part, head: head, group: group, count: count, dim: dim, to: block, columns: columns)
                }
                let used = wanted.dense.clamped(to: first..<first + count)
                let rows = block + (used.lowerBound - first) * dim
                wanted.withTargets(used.lowerBound - wanted.dense.lowerBound, used.count) { list in
                    table?.rotate(rows, dim: dim, tokens: list, direction: 1)
                    kv_store_rows(output.kernelHead(head), list.baseAddress, used.count, rows)
                }
            }
        }
    }

    /// Decodes one part's channels of a group into the block `[count][dim]`.
    private func decode(
        _ part: QuantizedPart, head: Int, group: Int, count: Int, dim: Int, to block: UnsafeMutablePointer<Float>,
        columns: UnsafeMutablePointer<Float>
    ) {
        guard let channels = part.channels else {
            part.decode(head: head, group: group, to: block, stride: dim)
            part.fourier?.transform(block, count: count, inverse: true)
            return
        }
        part.decode(head: head, group: group, to: columns, stride: part.columns)
        part.fourier?.transform(columns, count: count, inverse: true)
        kv_scatter_channels(columns, count, channels[head], part.columns, block, dim)
    }

    private func decodeAlongChannels(
        _ part: QuantizedPart, dim: Int, _ table: RotaryTable?, _ wanted: TokenSelection, to output: MutableTensorView,
        scratch: DecodeScratch
    ) {
        let turned = scratch.floats(.block, dim * wanted.all)
        let rows = scratch.floats(.columns, dim * wanted.all)
        for head in 0..<geometry.keyValueHeads {
            for group in 0..<(dim + part.group - 1) / part.group {
                part.decode(head: head, group: group, to: turned + group * part.group * wanted.all, stride: wanted.all)
            }
            kv_transpose(turned, dim, wanted.all, wanted.all, rows, dim)
            let used = rows + wanted.dense.lowerBound * dim
            wanted.withTargets(0, wanted.dense.count) { list in
                table?.rotate(used, dim: dim, tokens: list, direction: 1)
                kv_store_rows(output.kernelHead(head), list.baseAddress, list.count, used)
            }
        }
    }

    /// Per head, the channels that a mask names and the others.
    func maskedChannels(
        _ part: PartView, dim: Int, scratch: DecodeScratch
    ) throws(CodecError) -> (masked: [[UInt16]], unmasked: [[UInt16]]) {
        let stride = (dim + 7) / 8
        let bits = try QuantizedPart.load(part.stream(.mask), geometry.keyValueHeads * stride, slot: .maxima, scratch)
        var masked: [[UInt16]] = []
        var unmasked: [[UInt16]] = []
        for head in 0..<geometry.keyValueHeads {
            let isMasked = { (channel: Int) in bits[head * stride + channel / 8] >> (channel % 8) & 1 == 1 }
            let chosen = (0..<dim).filter(isMasked).map { UInt16($0) }
            guard chosen.count == part.channels else {
                throw .damaged("a mask names \(chosen.count) channels where \(part.channels) belong")
            }
            masked.append(chosen)
            unmasked.append((0..<dim).filter { !isMasked($0) }.map { UInt16($0) })
        }
        return (masked, unmasked)
    }
}

/// Which tokens of a part are wanted, and where they go.
struct TokenSelection {
    /// Tokens of the part.
    let all: Int
    /// Wanted tokens, as indices among the part's.
    let dense: Range<Int>
    /// For each wanted token, its index in the range asked for.
    private let targets: [UInt32]

    init(all tokens: [UInt32], range: Range<Int>) {
        all = tokens.count
        let first = tokens.firstIndex { $0 >= range.lowerBound } ?? tokens.count
        let end = tokens.firstIndex { $0 >= range.upperBound } ?? tokens.count
        dense = first..<end
        targets = tokens[dense].map { $0 - UInt32(range.lowerBound) }
    }

    /// Calls `body` with the targets of `count` wanted tokens from the `first`.
    func withTargets(_ first: Int, _ count: Int, _ body: (UnsafeBufferPointer<UInt32>) -> Void) {
        targets.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[first..<first + count])) }
    }
}
