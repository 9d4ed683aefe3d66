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
    /// Where the lanes of each channel are.
    private let columns: UnsafeMutablePointer<UnsafePointer<Float>?>
    /// `[tile][dim]` of a 16-bit type.
    private let halves: UnsafeMutablePointer<UInt16>
    /// Where the rows of a tile of a 16-bit type go.
    private let places: UnsafeMutablePointer<kv_rows16>

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
        columns = scratch.bytes(.columns, MemoryLayout<UnsafePointer<Float>?>.stride * dim).baseAddress.unsafelyUnwrapped
            .assumingMemoryBound(to: UnsafePointer<Float>?.self)
        places = scratch.bytes(.places, MemoryLayout<kv_rows16>.size).baseAddress.unsafelyUnwrapped
            .assumingMemoryBound(to: kv_rows16.self)
        halves = scratch.bytes(.values, 2 * Self.tile * dim).baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt16.self)
    }

    /// Decodes the wanted tokens of a head to `output`.
    func decode(_ wanted: TokenSelection, head: Int, to output: kv_head, type: ElementType) {
        // Groups along channels can be cut anywhere between tokens; others are, within a group, at multiples of a tile.
        let step = first.runsAlongChannels ? wanted.all : first.group
        let way = way(to: type)
        for start in stride(from: wanted.dense.lowerBound / step * step, to: wanted.dense.upperBound, by: step) {
            let end = min(start + step, wanted.all)
            for from in stride(from: start, to: end, by: Self.tile) {
                let tokens = from..<min(from + Self.tile, end)
                let used = wanted.dense.clamped(to: tokens)
                guard !used.isEmpty else { continue }
                let place = Place(head: head, group: start / step, first: from - start, tokens: tokens)
                let targets = UnsafeBufferPointer(start: wanted.targets(of: used.lowerBound), count: used.count)
                decode(place, unused: used.lowerBound - from, targets, to: output, type, by: way)
            }
        }
    }

    // MARK: - From codes to elements

    /// How values become elements.
    private enum Way {
        /// Each code is looked up among the few elements of its group, or turned and rounded in registers.
        case direct
        /// By way of rows of floats, which are turned and rounded in registers.
        case rotated(RotaryTable)
        /// By way of rows of floats.
        case general
    }

    private func way(to type: ElementType) -> Way {
        guard type != .float32 else { return .general }
        guard let rotary else { return isPlain && first.hasFewLevels ? .direct : .general }
        guard rotary.pairsHalves(ofDim: dim), dim / 2 % Self.tile == 0 else { return .general }
        return isPlain && !first.runsAlongChannels ? .direct : .rotated(rotary)
    }

    /// Whether a row's values are those of one part, in order.
    private var isPlain: Bool { first.channels == nil && first.fourier == nil }

    /// - Parameters:
    ///   - unused: rows of the tile before the first that is wanted.
    ///   - targets: tokens of the output of the rows from there on.
    private func decode(
        _ place: Place, unused: Int, _ targets: UnsafeBufferPointer<UInt32>, to output: kv_head, _ type: ElementType, by way: Way
    ) {
        if case .general = way {
            decodeRows(place)
            rotary?.rotate(rows + unused * dim, dim: dim, tokens: targets, direction: 1)
            kv_store_rows(output, targets.baseAddress, targets.count, rows + unused * dim)
            return
        }
        let isInPlace = kv_tile_rows(output, targets.baseAddress, unused, targets.count, place.tokens.count, halves, places)
        if case .rotated(let rotary) = way {
            decodeRows(place)
            rotary.withTables { cosines, sines in
                kv_store_rotated16(Int32(type.rawValue), rows, place.tokens.count, dim, cosines, sines, places)
            }
        } else {
            decode16(place, as: type)
        }
        if isInPlace == 0 { kv_copy_rows(output, targets.baseAddress, targets.count, halves + unused * dim) }
    }

    private func decode16(_ place: Place, as type: ElementType) {
        if first.runsAlongChannels {
            first.decodeAlong16(
                as: type, head: place.head, first: place.tokens.lowerBound, count: place.tokens.count, to: places)
        } else {
            first.decode16(
                as: type, head: place.head, group: place.group, first: place.first, count: place.tokens.count, to: places,
                rotary: rotary)
        }
    }

    // MARK: - By way of floats

    private func decodeRows(_ place: Place) {
        let count = place.tokens.count
        if first.runsAlongChannels {
            first.decodeAlong(head: place.head, first: place.tokens.lowerBound, count: count, to: rows)
        } else if isPlain {
            first.decode(head: place.head, group: place.group, first: place.first, count: count, to: rows, stride: dim)
        } else {
            decodeColumns(of: first, place)
            if let second { decodeColumns(of: second, place) }
            kv_transpose_table(columns, dim, count, rows, dim)
        }
    }

    /// Decodes a part's columns, and notes for each of its channels where its lanes are.
    private func decodeColumns(of part: borrowing QuantizedPart, _ place: Place) {
        let channels = part.channels.map { $0 + place.head * part.columns }
        guard let fourier = part.fourier else {
            part.decodeLanes(
                head: place.head, group: place.group, first: place.first, count: place.tokens.count, channels: channels, to: lanes
            )
            note(channels, count: part.columns) { channel, _ in lanes + channel * Self.tile }
            return
        }
        part.decodeLanes(
            head: place.head, group: place.group, first: place.first, count: place.tokens.count, channels: nil, to: fourier.lanes)
        let values = fourier.inverse()
        guard first.fourier === second?.fourier else {
            note(channels, count: part.columns) { _, column in values + column * Self.tile }
            return
        }
        // Both parts work in the same memory.
        note(channels, count: part.columns) { channel, column in
            let place = lanes + channel * Self.tile
            place.update(from: values + column * Self.tile, count: Self.tile)
            return place
        }
    }

    private func note(
        _ channels: UnsafePointer<UInt16>?, count: Int, _ lanes: (_ channel: Int, _ column: Int) -> UnsafeMutablePointer<Float>
    ) {
        for column in 0..<count {
            let channel = channels.map { Int($0[column]) } ?? column
            columns[channel] = UnsafePointer(lanes(channel, column))
        }
    }
}
