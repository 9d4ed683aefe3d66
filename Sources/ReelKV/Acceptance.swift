import KVCodec

/// How lossy a page a caller will take. A match stops where no encoding of a page passes.
public struct Acceptance: Hashable, Sendable {
    /// The greatest NMSE (squared error over squared value, mean over layers) of keys and of values.
    public var keyErrorMax: Float
    public var valueErrorMax: Float

    /// Whatever is stored; the most exact encoding of each page is taken.
    public static let any = Acceptance(keyErrorMax: .infinity, valueErrorMax: .infinity)
    /// Bit-identical tensors only.
    public static let exact = Acceptance(keyErrorMax: 0, valueErrorMax: 0)

    public init(keyErrorMax: Float, valueErrorMax: Float) {
        self.keyErrorMax = keyErrorMax
        self.valueErrorMax = valueErrorMax
    }

    func accepts(_ encoding: EncodingRecord) -> Bool {
        !encoding.isQuarantined && encoding.keyError <= keyErrorMax && encoding.valueError <= valueErrorMax
    }

    /// The most exact encoding that passes; the smaller of two equals.
    func best(of node: NodeView) -> EncodingRecord? {
        var best: EncodingRecord?
        for index in 0..<node.encodingCount {
            let encoding = node.encoding(index)
            guard accepts(encoding) else { continue }
            if let known = best, known.cost <= encoding.cost { continue }
            best = encoding
        }
        return best
    }
}

extension EncodingRecord {
    fileprivate var cost: (Float, UInt32) { (keyError + valueError, imageBytes) }
}
