import KVCodec
import Testing

/// The search for scales and minima of two-bit groups, beside one that tries everything.
@Suite struct ScaleSearchTests {
    private static let columns = 37

    /// Values of many kinds, a kind to each column.
    private static func values(rows: Int, generator: inout SplitMix64) -> [Float] {
        let scale = Float(sign: .plus, exponent: Int.random(in: -60...40, using: &generator), significand: 1)
        var values = [Float](repeating: 0, count: rows * columns)
        for column in 0..<columns {
            let width = scale * Float.random(in: 0.2...4, using: &generator)
            let middle = width * Float.random(in: -6...6, using: &generator)
            for row in 0..<rows {
                let uniform = Float.random(in: -1...1, using: &generator)
                let spread: Float =
                    switch column % 5 {
                    case 0: uniform
                    case 1: (0..<6).reduce(uniform) { sum, _ in sum + Float.random(in: -1...1, using: &generator) } / 2
                    case 2: row % 29 == 3 ? 8 : uniform
                    case 3: uniform > 0.2 ? 1 : -0.5
                    default: uniform * uniform * uniform * 3
                    }
                values[row * columns + column] = middle + width * spread
            }
        }
        return values
    }

    /// The least squared error of four evenly spaced levels, of a fine grid of them.
    private func leastError(_ group: [Float]) -> Double {
        guard let low = group.min(), let high = group.max(), low < high else { return 0 }
        let range = Double(high - low)
        var least = Double.infinity
        for fraction in 0..<44 {
            let step = range / 2.6 * (1 - Double(fraction) / 46)
            for shift in -12...36 {
                let lowest = Double(low) + range * Double(shift) / 48
                var error = 0.0
                for value in group {
                    let code = max(0, min(3, ((Double(value) - lowest) / step).rounded()))
                    let difference = Double(value) - lowest - code * step
                    error += difference * difference
                }
                least = min(least, error)
            }
        }
        return least
    }

    @Test(arguments: [8, 16, 32, 40, 64, 128])
    func findsLevelsAlmostAsGoodAsTheBest(group: Int) throws {
        var generator = SplitMix64(seed: UInt64(group))
        var options = EncoderOptions()
        options.groupSize = group
        let rows = 2 * group + group / 2
        let values = Self.values(rows: rows, generator: &generator)
        let decoded = try GroupQuantizer.roundTrip(
            values, rows: rows, columns: Self.columns, quantizer: .uniform(bits: 2), options: options)
        var (error, least) = (0.0, 0.0)
        for column in 0..<Self.columns {
            for first in stride(from: 0, to: rows, by: group) {
                let places = (first..<min(first + group, rows)).map { $0 * Self.columns + column }
                let own = places.map { values[$0] }
                // Columns differ in width, and are to count alike.
                let width = Double((own.max() ?? 0) - (own.min() ?? 0))
                guard width > 0 else { continue }
                let differences = places.map { (Double(values[$0]) - Double(decoded[$0])) / width }
                error += differences.reduce(0) { $0 + $1 * $1 }
                least += leastError(own) / width / width
            }
        }
        #expect(error < (group < 16 ? 1.3 : 1.2) * least, "\(error / least) times the least error")
    }

    /// A group of one value, of values next to each other far from zero, and of values too small to tell apart beside the others.
    @Test func takesGroupsOfNextToNoWidth() throws {
        var generator = SplitMix64(seed: 5)
        let rows = 64
        var values = Self.values(rows: rows, generator: &generator).map { $0 == 0 ? 0 : $0 / abs($0) }
        for row in 0..<rows {
            values[row * Self.columns] = 3.5
            values[row * Self.columns + 1] = row % 2 == 0 ? 1000 : Float(1000).nextUp
            values[row * Self.columns + 2] = row % 3 == 0 ? 0x1p-149 : 0
            values[row * Self.columns + 3] = row % 3 == 0 ? 0x1p-120 : -0x1p-120
            values[row * Self.columns + 4] = row < 32 ? 0 : Float(row)
        }
        let decoded = try GroupQuantizer.roundTrip(
            values, rows: rows, columns: Self.columns, quantizer: .uniform(bits: 2), options: EncoderOptions())
        for row in 0..<rows {
            let at = row * Self.columns
            #expect(decoded[at] == 3.5)
            #expect(abs(decoded[at + 1] - 1000) < 0.01)
            #expect(abs(decoded[at + 2]) < 1e-30)
            #expect(abs(decoded[at + 3]) < 1e-30)
            #expect(abs(decoded[at + 4] - values[at + 4]) < 6)
        }
    }
}
