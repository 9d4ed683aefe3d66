import CKVKernels

extension TensorView {
    /// A copy of the tensor as floats: contiguous `[heads, tokens, dim]`. Exact for every element type.
    public func floats() -> [Float] {
        var rows = HeadRows(heads: heads, tokens: tokens, dim: dim)
        rows.load(self, tokens: (0..<tokens).map { UInt32($0) })
        return rows.values
    }
}
