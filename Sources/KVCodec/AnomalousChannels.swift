import CKVKernels

/// Which key channels keep 2 bits: the same number in every head.
struct AnomalousChannels {
    private let dim: Int
    private let count: Int
    /// Per head, its anomalous channels and then the rest, each ascending.
    private let channels: [UInt16]

    init(rows: HeadRows, count: Int, options: EncoderOptions) {
        let dim = rows.dim
        var scores = (0..<rows.heads).map { Self.scores(rows, head: $0, selection: options.channelSelection) }
        if options.maskScope == .perLayer {
            let shared = (0..<dim).map { channel in scores.reduce(-Float.infinity) { max($0, $1[channel]) } }
            scores = Array(repeating: shared, count: rows.heads)
        }
        channels = [UInt16](unsafeUninitializedCapacity: rows.heads * dim) { channels, used in
            for (head, scores) in scores.enumerated() {
                let own = channels.baseAddress.unsafelyUnwrapped + head * dim
                kv_choose_channels(scores, dim, count, own, own + count)
            }
            used = rows.heads * dim
        }
        self.dim = dim
        self.count = count
    }

    private static func scores(_ rows: HeadRows, head: Int, selection: EncoderOptions.ChannelSelection) -> [Float] {
        switch selection {
        case .range:
            return Array(UnsafeBufferPointer(start: rows.ranges(head), count: rows.dim))
        case .variance:
            return variances(rows, head: head).map { Float($0) }
        case .outlierCount:
            let variance = variances(rows, head: head)
            let spread = variance.reduce(0, +) / Double(rows.dim)
            var outliers = [UInt32](repeating: 0, count: rows.dim)
            kv_count_outliers(rows.head(head), rows.tokens, rows.dim, Float(3 * max(0, spread).squareRoot()), &outliers)
            return outliers.map { Float($0) }
        }
    }

    private static func variances(_ rows: HeadRows, head: Int) -> [Double] {
        var variance = [Double](repeating: 0, count: rows.dim)
        kv_column_variances(rows.head(head), rows.tokens, rows.dim, &variance)
        return variance
    }

    /// Calls `body` with the anomalous channels of a head and the rest, each ascending.
    func withChannels(of head: Int, _ body: (_ masked: UnsafePointer<UInt16>, _ unmasked: UnsafePointer<UInt16>) -> Void) {
        channels.withUnsafeBufferPointer { channels in
            let own = channels.baseAddress.unsafelyUnwrapped + head * dim
            body(own, own + count)
        }
    }

    /// One bit per channel, lowest first, each head starting at a new byte.
    var bytes: [UInt8] {
        let headBytes = (dim + 7) / 8
        var bits = [UInt8](repeating: 0, count: channels.count / dim * headBytes)
        for start in stride(from: 0, to: channels.count, by: dim) {
            for channel in channels[start..<start + count] {
                bits[start / dim * headBytes + Int(channel) / 8] |= 1 << (channel % 8)
            }
        }
        return bits
    }
}
