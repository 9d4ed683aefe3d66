import CKVKernels

/// Turns a part's codes into rows of values, so few tokens at a time that everything on the way stays in the L1 cache: a tile of
/// 32 tokens of 128 channels is 16 KB of floats.
struct TileDecoder {
    let first: QuantizedPart
    /// The unmasked part, when `first` is a masked one.
    let second: QuantizedPart?
    let dim: Int
    /// `[tile][dim]`
    private let rows: UnsafeMutablePointer<Float>
    /// `[dim][tile]`
    private let lanes: UnsafeMutablePointer<Float>

    /// Tokens of a tile.
    static let tile = FourierPlan.laneCount

    init(first: QuantizedPart, second: QuantizedPart?, dim: Int, scratch: DecodeScratch) {
        self.first = first
        self.second = second
        self.dim = dim
        rows = scratch.floats(.rows, Self.tile * dim)
        lanes = scratch.floats(.lanes, Self.tile * dim)
    }

    /// Calls `body` with rows `[used][dim]` of a head, tile by tile, until all wanted tokens were in one; `used` are indices among the
    /// part's tokens.
    func forEachTile(
        of wanted: TokenSelection, head: Int, _ body: (_ rows: UnsafeMutablePointer<Float>, _ used: Range<Int>) -> Void
    ) {
        // Groups along channels can be cut anywhere between tokens; others are, within a group, at multiples of a tile.
        let step = first.runsAlongChannels ? wanted.all : first.group
        for start in stride(from: wanted.dense.lowerBound / step * step, to: wanted.dense.upperBound, by: step) {
            let end = min(start + step, wanted.all)
            for from in stride(from: start, to: end, by: Self.tile) {
                let tile = from..<min(from + Self.tile, end)
                let used = wanted.dense.clamped(to: tile)
                guard !used.isEmpty else { continue }
                decode(head: head, group: start / step, start: start, tile)
                body(rows + (used.lowerBound - from) * dim, used)
            }
        }
    }

    private func decode(head: Int, group: Int, start: Int, _ tile: Range<Int>) {
        let from = tile.lowerBound - start
        if first.runsAlongChannels {
            first.decodeAlong(head: head, first: tile.lowerBound, count: tile.count, to: rows)
        } else if first.channels == nil, first.fourier == nil {
            first.decode(head: head, group: group, first: from, count: tile.count, to: rows, stride: dim)
        } else {
            fillLanes(first, head: head, group: group, from: from, count: tile.count)
            if let second { fillLanes(second, head: head, group: group, from: from, count: tile.count) }
            kv_transpose(lanes, dim, tile.count, Self.tile, rows, dim)
        }
    }

    /// Puts a part's columns into the lanes of their channels.
    private func fillLanes(_ part: QuantizedPart, head: Int, group: Int, from: Int, count: Int) {
        let channels = part.channels.map { $0 + head * part.columns }
        guard let fourier = part.fourier else {
            part.decodeLanes(head: head, group: group, first: from, count: count, channels: channels, to: lanes)
            return
        }
        part.decodeLanes(head: head, group: group, first: from, count: count, channels: nil, to: fourier.lanes)
        let values = fourier.inverse()
        for column in 0..<part.columns {
            let channel = channels.map { Int($0[column]) } ?? column
            (lanes + channel * Self.tile).update(from: values + column * Self.tile, count: Self.tile)
        }
    }
}
