import CKVKernels

/// Quantizes matrices in groups of rows.
package enum GroupQuantizer {
    /// What goes with a quantized matrix's codes: scale codes and means per group and column.
    struct Result {
        var scales: UnsafeMutablePointer<UInt8>
        var means: UnsafeMutablePointer<Int32>
        var anchor: Int8 = 0
        var steps: UInt8 = 0
        /// What the codes stand for, against the values.
        var sums = SquareSums()
    }

    /// Quantizes `[rows][columns]`.
    /// - Parameters:
    ///   - packed: gets the codes, `byteRows` bytes of each column.
    ///   - scales: gets the scale codes, one of each group and column.
    ///   - means: gets the means likewise.
    static func quantize(
        _ values: UnsafePointer<Float>, rows: Int, columns: Int, group: Int, quantizer: kv_quantizer,
        packed: UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<UInt8>, means: UnsafeMutablePointer<Int32>,
        scratch: EncodeScratch
    ) -> Result {
        var result = Result(scales: scales, means: means)
        let memory = scratch.array(.quantizing, kv_quantize_scratch(rows, columns, group), of: UInt8.self)
        withUnsafePointer(to: quantizer) { quantizer in
            kv_quantize(
                quantizer, values, rows, columns, group, packed, result.scales, result.means, &result.anchor, &result.steps,
                &result.sums.error, &result.sums.energy, memory)
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
    ) throws(CodecError) -> [Float] {
        let kernel = kv_quantizer(quantizer, tensor: .key, options: options, clips: true)
        let group = options.groupSize
        return try EncodeScratch.with { scratch throws(CodecError) in
            let byteRows = byteRows(rows: rows, group: group, perByte: 8 / quantizer.codeBits)
            let packed = scratch.array(.codesA, byteRows * columns, of: UInt8.self)
            let groups = (rows + group - 1) / group
            let result = quantize(
                values, rows: rows, columns: columns, group: group, quantizer: kernel, packed: packed,
                scales: scratch.array(.scalesA, groups * columns, of: UInt8.self),
                means: scratch.array(.meansA, groups * columns, of: Int32.self), scratch: scratch)
            let table = scaleValues(anchor: Int(result.anchor), steps: Int(result.steps))
            var units = [Float](repeating: 0, count: columns)
            kv_mean_units(result.scales, groups, columns, table, kernel.mean_shift, &units)
            var scales = [Float](repeating: 0, count: groups * columns)
            var means = scales
            kv_expand_metadata(result.scales, result.means, groups, columns, table, units, &scales, &means)
            return [Float](unsafeUninitializedCapacity: rows * columns) { decoded, count in
                for index in 0..<groups {
                    let row = index * group
                    kv_dequantize_group(
                        Int32(quantizer.scheme.rawValue), kernel.code_bits, packed + row * quantizer.codeBits / 8 * columns,
                        min(group, rows - row), columns, Array(scales[(index * columns)...]), Array(means[(index * columns)...]),
                        decoded.baseAddress.map { $0 + row * columns }, columns)
                }
                count = rows * columns
            }
        }
    }
}
