import CKVKernels

/// Quantizes matrices in groups of rows.
package enum GroupQuantizer {
    struct Result {
        var codes: [UInt8]
        var scales: [UInt8]
        var means: [Int32]
        var anchor: Int8
        var steps: UInt8
    }

    /// Quantizes `[rows][columns]`: codes per value, scale codes and means per group and column.
    static func quantize(
        _ values: UnsafePointer<Float>, rows: Int, columns: Int, group: Int, quantizer: kv_quantizer
    ) -> Result {
        let groups = (rows + group - 1) / group
        var result = Result(
            codes: Array(repeating: 0, count: rows * columns), scales: Array(repeating: 0, count: groups * columns),
            means: Array(repeating: 0, count: groups * columns), anchor: 0, steps: 0)
        let scratch = UnsafeMutableRawPointer.allocate(
            byteCount: kv_quantize_scratch(rows, columns, group), alignment: MemoryLayout<UInt64>.alignment)
        defer { scratch.deallocate() }
        withUnsafePointer(to: quantizer) { quantizer in
            kv_quantize(
                quantizer, values, rows, columns, group, &result.codes, &result.scales, &result.means, &result.anchor,
                &result.steps, scratch)
        }
        return result
    }

    /// Bytes of one channel's codes: every group starts at a new byte.
    static func byteRows(rows: Int, group: Int, perByte: Int) -> Int {
        let last = rows % group
        return rows / group * (group / perByte) + (last + perByte - 1) / perByte
    }

    /// The value of each of the 256 scale codes.
    package static func scaleValues(anchor: Int, steps: Int) -> [Float] {
        var table = [Float](repeating: 0, count: 256)
        kv_scale_values(Int32(anchor), Int32(steps), &table)
        return table
    }

    /// What a matrix `[rows][columns]` comes back as after quantizing it in groups along its rows. For measuring quantizers by
    /// themselves.
    package static func roundTrip(
        _ values: [Float], rows: Int, columns: Int, quantizer: Quantizer, options: EncoderOptions
    ) -> [Float] {
        let kernel = kv_quantizer(quantizer, tensor: .key, options: options, clips: true)
        let group = options.groupSize
        let result = quantize(values, rows: rows, columns: columns, group: group, quantizer: kernel)
        let groups = (rows + group - 1) / group
        let table = scaleValues(anchor: Int(result.anchor), steps: Int(result.steps))
        var units = [Float](repeating: 0, count: columns)
        kv_mean_units(result.scales, groups, columns, table, kernel.mean_shift, &units)
        var scales = [Float](repeating: 0, count: groups * columns)
        var means = scales
        kv_expand_metadata(result.scales, result.means, groups, columns, table, units, &scales, &means)
        return (0..<rows * columns).map { index in
            let at = index / columns / group * columns + index % columns
            return means[at] + quantizer.scheme.level(result.codes[index]) * scales[at]
        }
    }
}

extension Scheme {
    /// What a code stands for, in units of the scale.
    func level(_ code: UInt8) -> Float {
        switch self {
        case .exact, .uniform: Float(code)
        case .sign: 2 * Float(code) - 1
        case .ternary: Float(code) - 1
        }
    }
}
