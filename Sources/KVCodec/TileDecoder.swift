import CKVKernels

/// Turns a part's codes into the caller's values, so few tokens at a time that everything on the way stays in the L1 cache: a
/// tile of 32 tokens of 128 channels is 16 KB of floats.
struct TileDecoder {
    let first: QuantizedPart
    /// The unmasked part, when `first` is a masked one.
    let second: QuantizedPart?
    let dim: Int
    /// The angles to turn keys by; nil when they are stored as they were.
    let rotary: RotaryTable?
    /// `[tile][dim]`
    private let rows: UnsafeMutablePointer<Float>
    /// `[dim][tile]`
    private let lanes: UnsafeMutablePointer<Float>
    /// `[tile][dim]` of a 16-bit type.
    private let halves: UnsafeMutablePointer<UInt16>

    /// Tokens of a tile.
    static let tile = FourierPlan.laneCount

    /// A tile within a group of a head's tokens.
    private struct Place {
        let head: Int
        let group: Int
        /// The tile's first token, counted from the group's.
        let first: Int
        let tokens: Range<Int>
    }

    init(first: QuantizedPart, second: QuantizedPart?, dim: Int, rotary: RotaryTable?, scratch: DecodeScratch) {
        self.first = first
        self.second = second
        self.dim = dim
        self.rotary = rotary
        rows = scratch.floats(.rows, Self.tile * dim)
        lanes = scratch.floats(.lanes, Self.tile * dim)
        halves = scratch.bytes(.values, 2 * Self.tile * dim).baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt16.self)
    }

    /// Decodes the wanted tokens of a head to `output`.
    func decode(_ wanted: TokenSelection, head: Int, to output: kv_head, type: ElementType) {
        // Groups along channels can be cut anywhere between tokens; others are, within a group, at multiples of a tile.
        let step = first.runsAlongChannels ? wanted.all : first.group
        let isDirect = first.hasFewLevels && isPlain && rotary == nil && type != .float32
        for start in stride(from: wanted.dense.lowerBound / step * step, to: wanted.dense.upperBound, by: step) {
            let end = min(start + step, wanted.all)
            for from in stride(from: start, to: end, by: Self.tile) {
                let tokens = from..<min(from + Self.tile, end)
                let used = wanted.dense.clamped(to: tokens)
                guard !used.isEmpty else { continue }
                let place = Place(head: head, group: start / step, first: from - start, tokens: tokens)
                let targets = UnsafeBufferPointer(start: wanted.targets(of: used.lowerBound), count: used.count)
                let unused = (used.lowerBound - from) * dim
                if isDirect {
                    decode16(place, as: type)
                    kv_copy_rows(output, targets.baseAddress, used.count, halves + unused)
                } else {
                    decodeRows(place)
                    rotary?.rotate(rows + unused, dim: dim, tokens: targets, direction: 1)
                    kv_store_rows(output, targets.baseAddress, used.count, rows + unused)
                }
            }
        }
    }

    /// Whether a row's values are those of one part, in order.
    private var isPlain: Bool { first.channels == nil && first.fourier == nil }

    private func decode16(_ place: Place, as type: ElementType) {
        if first.runsAlongChannels {
            first.decodeAlong16(
                as: type, head: place.head, first: place.tokens.lowerBound, count: place.tokens.count, to: halves)
        } else {
            first.decode16(
                as: type, head: place.head, group: place.group, first: place.first, count: place.tokens.count, to: halves)
        }
    }

    private func decodeRows(_ place: Place) {
        let count = place.tokens.count
        if first.runsAlongChannels {
            first.decodeAlong(head: place.head, first: place.tokens.lowerBound, count: count, to: rows)
        } else if isPlain {
            first.decode(head: place.head, group: place.group, first: place.first, count: count, to: rows, stride: dim)
        } else {
            fillLanes(first, place)
            if let second { fillLanes(second, place) }
            kv_transpose(lanes, dim, count, Self.tile, rows, dim)
        }
    }

    /// Puts a part's columns into the lanes of their channels.
    private func fillLanes(_ part: QuantizedPart, _ place: Place) {
        let channels = part.channels.map { $0 + place.head * part.columns }
        guard let fourier = part.fourier else {
            part.decodeLanes(
                head: place.head, group: place.group, first: place.first, count: place.tokens.count, channels: channels, to: lanes
            )
            return
        }
        part.decodeLanes(
            head: place.head, group: place.group, first: place.first, count: place.tokens.count, channels: nil, to: fourier.lanes)
        let values = fourier.inverse()
        for column in 0..<part.columns {
            let channel = channels.map { Int($0[column]) } ?? column
            (lanes + channel * Self.tile).update(from: values + column * Self.tile, count: Self.tile)
        }
    }
}
