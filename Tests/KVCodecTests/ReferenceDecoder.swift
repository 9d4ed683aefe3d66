import KVCodec

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Decodes quantized parts the slow way, from schema/FORMAT.md alone: plain Swift, one element at a time, no kernel. It takes
/// streams stored raw and zstd alike, because it is handed their decompressed bytes.
struct ReferenceDecoder {
    /// A quantized part and its decompressed streams.
    struct Part {
        var scheme: Scheme
        var codeBits: Int
        var fourier: Bool
        var alongChannels: Bool
        var meanShift: Int
        var group: Int
        /// Rows and columns of one head's matrix.
        var rows: Int
        var columns: Int
        var codes: [UInt8]
        var scales: [UInt8]
        var anchors: [UInt8]
        var meanPlanes: [[UInt8]]
    }

    /// The value of a scale code: 2^(anchor + (code - 128) / 2^steps), to the nearest float, its exponent kept within -126...127.
    static func scaleValue(code: Int, anchor: Int, steps: Int) -> Float {
        guard code > 0 else { return 0 }
        let exponent = Double(anchor) + Double(code - 128) / Double(1 << steps)
        let whole = exponent.rounded(.down)
        // Rounded to a float before the power of two, as the table of sixteenths is.
        return Float(exp2(exponent - whole)) * Float(exp2(min(127, max(-126, whole))))
    }

    /// One head's matrix `[rows][columns]`.
    static func matrix(_ part: Part, head: Int) -> [Float] {
        let groups = (part.rows + part.group - 1) / part.group
        let anchor = Int(Int8(bitPattern: part.anchors[2 * head]))
        let steps = Int(part.anchors[2 * head + 1])
        var result = [Float](repeating: 0, count: part.rows * part.columns)
        for column in 0..<part.columns {
            let codes = scaleCodes(part, head: head, groups: groups, column: column)
            let means = meanIntegers(part, head: head, groups: groups, column: column)
            let nonzero = codes.filter { $0 > 0 }
            let unit =
                nonzero.isEmpty
                ? 0
                : scaleValue(code: nonzero.reduce(0, +) / nonzero.count, anchor: anchor, steps: steps)
                    / Float(1 << part.meanShift)
            for row in 0..<part.rows {
                let group = row / part.group
                let level = level(part, head: head, row: row, column: column)
                let scale = scaleValue(code: codes[group], anchor: anchor, steps: steps)
                result[row * part.columns + column] = Float(means[group]) * unit + level * scale
            }
        }
        return part.fourier ? inverseFourier(result, rows: part.rows, columns: part.columns) : result
    }

    private static func scaleCodes(_ part: Part, head: Int, groups: Int, column: Int) -> [Int] {
        var expected = 128
        return (0..<groups).map { group in
            let code = (Int(part.scales[(head * groups + group) * part.columns + column]) + expected) % 256
            expected = group == 0 ? code : (expected + code + 1) / 2
            return code
        }
    }

    private static func meanIntegers(_ part: Part, head: Int, groups: Int, column: Int) -> [Int] {
        var mean = 0
        return (0..<groups).map { group in
            let at = (head * groups + group) * part.columns + column
            let zigzag = part.meanPlanes.enumerated().reduce(0) { $0 + Int($1.element[at]) << (8 * $1.offset) }
            mean += zigzag % 2 == 0 ? zigzag / 2 : -(zigzag + 1) / 2
            return mean
        }
    }

    private static func level(_ part: Part, head: Int, row: Int, column: Int) -> Float {
        let perByte = 8 / part.codeBits
        let groupBytes = part.group / perByte
        let lastGroup = part.rows % part.group
        let headBytes = part.rows / part.group * groupBytes + (lastGroup + perByte - 1) / perByte
        let byteRow = row / part.group * groupBytes + row % part.group / perByte
        let byte = part.codes[(head * headBytes + byteRow) * part.columns + column]
        let code = Int(byte) >> (row % part.group % perByte * part.codeBits) & (1 << part.codeBits - 1)
        switch part.scheme {
        case .exact, .uniform: return Float(code)
        case .sign: return Float(2 * code - 1)
        case .ternary: return Float(code - 1)
        }
    }

    /// The inverse of the orthonormal, Hermitian-packed transform of every row, by definition, in double precision.
    static func inverseFourier(_ packed: [Float], rows: Int, columns n: Int) -> [Float] {
        var result = packed
        for row in 0..<rows {
            for j in 0..<n {
                var sum = 0.0
                for k in 0...n / 2 {
                    let edge = k == 0 || 2 * k == n
                    let factor = (edge ? 1 / Double(n) : 2 / Double(n)).squareRoot()
                    let angle = 2 * Double.pi * Double(j * k % n) / Double(n)
                    sum += factor * Double(packed[row * n + k]) * cos(angle)
                    if !edge { sum -= factor * Double(packed[row * n + n / 2 + k]) * sin(angle) }
                }
                result[row * n + j] = Float(sum)
            }
        }
        return result
    }

    /// Applies the rotary embedding to one token's key, in double precision.
    static func rotate(_ key: inout [Float], by rotary: RotaryParameters, positions: [Int]) {
        let pairs = rotary.inverseFrequencies.count
        let streams = rotary.sections.map { $0.enumerated().flatMap { Array(repeating: $0, count: $1) } }
        for pair in 0..<pairs {
            let position = positions.count > 1 ? positions[streams?[pair] ?? 0] : positions[0]
            let angle = Double(position) * Double(rotary.inverseFrequencies[pair])
            let (first, second) = rotary.pairing == .halves ? (pair, pair + pairs) : (2 * pair, 2 * pair + 1)
            let (a, b) = (Double(key[first]), Double(key[second]))
            key[first] = Float(a * cos(angle) - b * sin(angle))
            key[second] = Float(b * cos(angle) + a * sin(angle))
        }
    }
}
