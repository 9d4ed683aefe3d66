import KVCodec
import ReelKV

/// The keys or values of one layer's cache, `[heads, tokens, dim]`, oldest token first.
///
/// They are read where they lie; only those of a rotating cache that has wrapped around are copied into order.
final class CacheRows {
    let view: TensorView
    private var copy: UnsafeMutableRawBufferPointer?

    /// - Parameters:
    ///   - strides: elements from one index to the next, for each of the array's four dimensions.
    ///   - rotation: the rotating cache's state; nil for one whose rows lie in order.
    init(
        bytes: UnsafeRawBufferPointer, shape: [Int], strides: [Int], elementType: ElementType, rotation: RotatingState?
    ) throws {
        let whole = try TensorView(
            bytes: bytes, elementType: elementType,
            layout: TensorLayout(
                heads: shape[1], tokens: shape[2], dim: shape[3], headStride: strides[1], tokenStride: strides[2],
                channelStride: strides[3]))
        guard let rotation else {
            view = whole
            return
        }
        let (older, newer) = rotation.order(rows: whole.tokens)
        guard !older.isEmpty else {
            view = try whole.tokens(newer)
            return
        }
        let layout = TensorLayout.headsFirst(heads: whole.heads, tokens: whole.tokens, dim: whole.dim)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(1, layout.elementCount * elementType.byteCount), alignment: 64)
        copy = memory
        let ordered = try MutableTensorView(bytes: memory, elementType: elementType, layout: layout)
        try whole.tokens(older).copy(to: try ordered.tokens(0..<older.count))
        try whole.tokens(newer).copy(to: try ordered.tokens(older.count..<whole.tokens))
        view = try TensorView(bytes: UnsafeRawBufferPointer(memory), elementType: elementType, layout: layout)
    }

    deinit { copy?.deallocate() }
}
