/// How often nodes were used of late, whether they are stored or not: a count-min sketch of counters up to 15, all of which are halved
/// when as many uses have come as make ten for each node that the store holds. After Einziger, Friedman and Manes, "TinyLFU" (ACM
/// Transactions on Storage, 2017). The conservative update adds to the lowest counters only.
struct FrequencySketch: Sendable {
    private var counters: [UInt8] = []
    private var width = 0
    private var additions = 0
    private var period = 0

    init() {}

    private static let rows = 4
    static let countMax: UInt8 = 15
    /// Counters of a row at most: 1 MiB in all.
    private static let widthMax = 1 << 18

    /// Makes the sketch as wide as it must be for so many nodes. Counts are kept: a wider row repeats the narrower one.
    mutating func fit(to nodes: Int) {
        period = max(64, 10 * nodes)
        var wanted = max(width, 1 << 10)
        while wanted < 2 * nodes, wanted < Self.widthMax { wanted <<= 1 }
        guard wanted > width else { return }
        var wider = [UInt8](repeating: 0, count: wanted * Self.rows)
        if width > 0 {
            for row in 0..<Self.rows {
                for column in 0..<wanted { wider[row * wanted + column] = counters[row * width + column & (width - 1)] }
            }
        }
        counters = wider
        width = wanted
    }

    /// The counters of a key. Keys are hashes: their own bits choose the columns.
    private func places(_ key: UInt64) -> (Int, Int, Int, Int) {
        let step = Int(truncatingIfNeeded: key >> 32 | 1)
        let first = Int(truncatingIfNeeded: key)
        let mask = width - 1
        return (
            first & mask, width + (first &+ step) & mask, 2 * width + (first &+ 2 &* step) & mask,
            3 * width + (first &+ 3 &* step) & mask
        )
    }

    func count(_ key: UInt64) -> UInt8 {
        guard width > 0 else { return 0 }
        let (a, b, c, d) = places(key)
        return min(min(counters[a], counters[b]), min(counters[c], counters[d]))
    }

    mutating func add(_ key: UInt64) {
        guard width > 0 else { return }
        let count = count(key)
        if count < Self.countMax {
            let (a, b, c, d) = places(key)
            for place in [a, b, c, d] where counters[place] == count { counters[place] = count + 1 }
        }
        additions += 1
        if additions >= period { halve() }
    }

    private mutating func halve() {
        additions /= 2
        for place in counters.indices { counters[place] >>= 1 }
    }
}

// MARK: - On the disk

extension FrequencySketch {
    /// The counters, row by row; empty before there are any.
    var encoded: [UInt8] { counters }

    /// nil for bytes that are no sketch: counting begins anew.
    init?(bytes: UnsafeRawBufferPointer) {
        let width = bytes.count / Self.rows
        guard width >= 1 << 10, width <= Self.widthMax, width & (width - 1) == 0, bytes.count == width * Self.rows,
            bytes.allSatisfy({ $0 <= Self.countMax })
        else { return nil }
        self.width = width
        counters = Array(bytes)
        period = 10 * width / 2
    }
}
