import CKVKernels

/// Which key channels keep 2 bits: the same number in every head.
struct AnomalousChannels {
    private let dim: Int
    /// Per head, the anomalous channels, ascending.
    private let perHead: [[UInt16]]

    init(rows: HeadRows, count: Int, options: EncoderOptions) {
        dim = rows.dim
        var scores = (0..<rows.heads).map { Self.scores(rows, head: $0, selection: options.channelSelection) }
        if options.maskScope == .perLayer {
            let shared = (0..<rows.dim).map { channel in scores.reduce(0) { max($0, $1[channel]) } }
            scores = Array(repeating: shared, count: rows.heads)
        }
        perHead = scores.map { scores in
            let order = scores.indices.sorted { scores[$0] == scores[$1] ? $0 < $1 : scores[$0] > scores[$1] }
            return order.prefix(count).sorted().map { UInt16($0) }
        }
    }

    private static func scores(_ rows: HeadRows, head: Int, selection: EncoderOptions.ChannelSelection) -> [Double] {
        switch selection {
        case .range:
            var range = [Float](repeating: 0, count: rows.dim)
            kv_column_ranges(rows.head(head), rows.tokens, rows.dim, &range)
            return range.map(Double.init)
        case .variance:
            return variances(rows, head: head)
        case .outlierCount:
            let variance = variances(rows, head: head)
            let spread = variance.reduce(0, +) / Double(rows.dim)
            var outliers = [UInt32](repeating: 0, count: rows.dim)
            kv_count_outliers(rows.head(head), rows.tokens, rows.dim, Float(3 * max(0, spread).squareRoot()), &outliers)
            return outliers.map(Double.init)
        }
    }

    private static func variances(_ rows: HeadRows, head: Int) -> [Double] {
        var variance = [Double](repeating: 0, count: rows.dim)
        kv_column_variances(rows.head(head), rows.tokens, rows.dim, &variance)
        return variance
    }

    /// The anomalous channels of a head and the rest, each ascending.
    func channels(of head: Int) -> (masked: [UInt16], unmasked: [UInt16]) {
        let masked = perHead[head]
        var unmasked: [UInt16] = []
        unmasked.reserveCapacity(dim - masked.count)
        var next = 0
        for channel in 0..<UInt16(dim) {
            if next < masked.count, masked[next] == channel { next += 1 } else { unmasked.append(channel) }
        }
        return (masked, unmasked)
    }

    /// One bit per channel, lowest first, each head starting at a new byte.
    var bytes: [UInt8] {
        perHead.flatMap { channels in
            var bits = [UInt8](repeating: 0, count: (dim + 7) / 8)
            for channel in channels { bits[Int(channel) / 8] |= 1 << (channel % 8) }
            return bits
        }
    }
}
