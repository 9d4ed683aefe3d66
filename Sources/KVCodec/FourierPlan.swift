import CKVKernels

/// The tables of a Fourier transform across `length` channels, and room to work in.
package final class FourierPlan {
    let length: Int
    private let tables: [Float]
    /// What to transform, `[length][laneCount]`: a vector of tokens per channel.
    let lanes: UnsafeMutablePointer<Float>
    private let result: UnsafeMutablePointer<Float>

    static let laneCount = Int(KV_LANES)

    package init(length: Int) {
        self.length = length
        self.tables = [Float](unsafeUninitializedCapacity: kv_fourier_table_count(length)) { buffer, count in
            kv_fourier_fill_tables(length, buffer.baseAddress)
            count = buffer.count
        }
        lanes = .allocate(capacity: length * Self.laneCount)
        lanes.initialize(repeating: 0, count: length * Self.laneCount)
        result = .allocate(capacity: 2 * length * Self.laneCount)
        result.initialize(repeating: 0, count: 2 * length * Self.laneCount)
    }

    deinit {
        lanes.deallocate()
        result.deallocate()
    }

    /// Transforms `lanes` back, which does away with them. The result, of the same shape, lasts until the next transform.
    func inverse() -> UnsafeMutablePointer<Float> {
        tables.withUnsafeBufferPointer { kv_fourier_inverse(length, $0.baseAddress, lanes, result) }
        return result
    }

    /// Transforms every row of `rows` `[count, length]` in place.
    package func transform(_ rows: UnsafeMutablePointer<Float>, count: Int, inverse: Bool) {
        var first = 0
        while first < count {
            let width = min(Self.laneCount, count - first)
            let block = rows + first * length
            kv_transpose(block, width, length, length, lanes, Self.laneCount)
            if inverse {
                _ = self.inverse()
            } else {
                tables.withUnsafeBufferPointer { kv_fourier_forward(length, $0.baseAddress, lanes, result) }
            }
            kv_transpose(result, length, width, Self.laneCount, block, length)
            first += width
        }
    }
}
