import CReelKV
import KVCodec
import ReelKV

/// No process has more memory than addresses of so many bits have room for.
private let addressBits = 56

extension reelkv_tensor {
    /// Where a caller's elements lie, and the bytes between the first and the last one.
    private func extent(_ name: String) throws -> (type: ElementType, layout: TensorLayout, byteCount: Int) {
        let type = try elementType(dtype, "\(name).dtype")
        // The stride of a dimension of one element is never gone along, and array libraries leave anything in it.
        let layout = TensorLayout(
            heads: Int(heads), tokens: Int(tokens), dim: Int(dim),
            headStride: heads > 1 ? try number(head_stride, "\(name).head_stride") : 0,
            tokenStride: tokens > 1 ? try number(token_stride, "\(name).token_stride") : 0,
            channelStride: dim > 1 ? try number(channel_stride, "\(name).channel_stride") : 0)
        guard let byteCount = layout.byteCount(of: type), byteCount < 1 << addressBits,
            !UInt(bitPattern: data).addingReportingOverflow(UInt(byteCount)).overflow
        else { throw Failure.invalid("'\(name)' has strides or sizes that reach beyond all memory") }
        return (type, layout, byteCount)
    }

    /// A tensor to read.
    func view(_ name: String) throws -> TensorView {
        let (type, layout, byteCount) = try extent(name)
        guard data != nil || byteCount == 0 else { throw Failure.invalid("'\(name).data' is NULL") }
        return try TensorView(
            bytes: UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : byteCount), elementType: type, layout: layout)
    }

    /// A tensor to write; nil where it is not wanted.
    func destination(_ name: String) throws -> MutableTensorView? {
        guard data != nil else { return nil }
        let (type, layout, byteCount) = try extent(name)
        return try MutableTensorView(
            bytes: UnsafeMutableRawBufferPointer(start: data, count: byteCount), elementType: type, layout: layout)
    }
}

extension LayerTokens {
    init(_ layer: reelkv_layer, _ name: String) throws {
        self.init(key: try layer.key.view("\(name).key"), value: try layer.value.view("\(name).value"))
    }
}

extension LayerDestination {
    init(_ layer: reelkv_layer, _ name: String) throws {
        self.init(key: try layer.key.destination("\(name).key"), value: try layer.value.destination("\(name).value"))
    }
}
