import KVCodec
import Testing

@Suite struct FourierTests {
    @Test func invertsAndKeepsLengths() {
        var generator = SplitMix64(seed: 1)
        for n in Array(1...40) + [48, 64, 80, 96, 100, 112, 128, 192, 255, 256, 1024] {
            let plan = FourierPlan(length: n)
            let values = (0..<5 * n).map { _ in Float.random(in: -1...1, using: &generator) }
            var rows = values
            rows.withUnsafeMutableBufferPointer { plan.transform($0.baseAddress!, count: 5, inverse: false) }
            for row in 0..<5 {
                let energy = { (all: [Float]) in all[row * n..<(row + 1) * n].reduce(0.0) { $0 + Double($1) * Double($1) } }
                #expect(abs(energy(rows) - energy(values)) < 1e-5 * energy(values), "\(n)")
            }
            let expected = ReferenceDecoder.inverseFourier(rows, rows: 5, columns: n)
            rows.withUnsafeMutableBufferPointer { plan.transform($0.baseAddress!, count: 5, inverse: true) }
            for index in values.indices {
                #expect(abs(rows[index] - values[index]) < 1e-5, "\(n)")
                #expect(abs(expected[index] - values[index]) < 1e-5, "\(n)")
            }
        }
    }

    @Test func aConstantIsAllInTheFirstRow() {
        var rows = [Float](repeating: 3, count: 40 * 16)
        rows.withUnsafeMutableBufferPointer { FourierPlan(length: 16).transform($0.baseAddress!, count: 40, inverse: false) }
        for row in 0..<40 {
            #expect(rows[row * 16] == 12)
            #expect(rows[row * 16 + 1..<(row + 1) * 16].allSatisfy { $0 == 0 })
        }
    }
}
