import CKVKernels

extension TensorView {
    /// A copy of the tensor as floats: contiguous `[heads, tokens, dim]`. Exact for every element type.
    public func floats() -> [Float] {
        // Without an element, the other sizes can be anything.
        guard layout.elementCount > 0 else { return [] }
        let list = (0..<UInt32(tokens)).map { $0 }
        return [Float](unsafeUninitializedCapacity: heads * tokens * dim) { buffer, count in
            count = heads * tokens * dim
            guard let base = buffer.baseAddress else { return }
            for head in 0..<heads { kv_load_rows(kernelHead(head), list, tokens, base + head * tokens * dim) }
        }
    }
}
