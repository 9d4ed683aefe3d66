import CKVKernels

/// Where the elements of a `[heads, tokens, dim]` tensor lie in memory, in any order. Strides count elements.
public struct TensorLayout: Hashable, Sendable {
    public var heads: Int
    public var tokens: Int
    public var dim: Int
    public var headStride: Int
    public var tokenStride: Int
    public var channelStride: Int

    public init(heads: Int, tokens: Int, dim: Int, headStride: Int, tokenStride: Int, channelStride: Int = 1) {
        self.heads = heads
        self.tokens = tokens
        self.dim = dim
        self.headStride = headStride
        self.tokenStride = tokenStride
        self.channelStride = channelStride
    }

    /// Contiguous `[heads, tokens, dim]`, which is also `[1, heads, tokens, dim]`: transformers, mlx.
    public static func headsFirst(heads: Int, tokens: Int, dim: Int) -> TensorLayout {
        TensorLayout(
            heads: heads, tokens: tokens, dim: dim, headStride: tokens.multipliedReportingOverflow(by: dim).partialValue,
            tokenStride: dim)
    }

    /// Contiguous `[tokens, heads, dim]`: vLLM, flash-attention.
    public static func tokensFirst(heads: Int, tokens: Int, dim: Int) -> TensorLayout {
        TensorLayout(
            heads: heads, tokens: tokens, dim: dim, headStride: dim,
            tokenStride: heads.multipliedReportingOverflow(by: dim).partialValue)
    }

    /// Elements of the tensor. Without any, the other sizes can be anything, and their product more than fits.
    public var elementCount: Int { heads == 0 || tokens == 0 || dim == 0 ? 0 : heads * tokens * dim }

    /// Elements from the first to past the last one; nil when a size or stride is negative or the sum overflows.
    func extent() -> Int? {
        guard heads >= 0, tokens >= 0, dim >= 0, headStride >= 0, tokenStride >= 0, channelStride >= 0 else { return nil }
        guard heads > 0, tokens > 0, dim > 0 else { return 0 }
        var last = 0
        for (count, stride) in [(heads, headStride), (tokens, tokenStride), (dim, channelStride)] {
            let (product, overflow) = (count - 1).multipliedReportingOverflow(by: stride)
            let (sum, carry) = last.addingReportingOverflow(product)
            guard !overflow, !carry else { return nil }
            last = sum
        }
        let (elements, overflow) = heads.multipliedReportingOverflow(by: tokens)
        guard !overflow, !elements.multipliedReportingOverflow(by: dim).overflow, last < .max else { return nil }
        return last + 1
    }

    /// Bytes from the first to past the last element; nil when a size or stride is negative or the sum overflows.
    package func byteCount(of elementType: ElementType) -> Int? {
        guard let (bytes, overflow) = extent()?.multipliedReportingOverflow(by: elementType.byteCount), !overflow else {
            return nil
        }
        return bytes
    }

    /// Throws unless a tensor of this layout, `offset` bytes into memory of `byteCount` bytes, lies within that memory.
    func check(elementType: ElementType, offset: Int, byteCount: Int) throws(CodecError) {
        guard let size = self.byteCount(of: elementType) else {
            throw .invalid("tensor [\(heads), \(tokens), \(dim)] has a negative size or stride, or is too large to address")
        }
        let (end, overflow) = size.addingReportingOverflow(offset)
        guard offset >= 0, !overflow, end <= byteCount else {
            throw .invalid(
                "tensor [\(heads), \(tokens), \(dim)] of \(elementType.name) with strides "
                    + "[\(headStride), \(tokenStride), \(channelStride)] at byte \(offset) does not fit its \(byteCount) bytes")
        }
    }

    func tokenRange(_ range: Range<Int>) throws(CodecError) -> TensorLayout {
        guard range.lowerBound >= 0, range.upperBound <= tokens else {
            throw .invalid("tokens \(range) are not within the tensor's \(tokens) tokens")
        }
        var layout = self
        layout.tokens = range.count
        return layout
    }

    func kernelHead(_ head: Int, base: UnsafeRawPointer, elementType: ElementType) -> kv_head {
        kv_head(
            base: base + head * headStride * elementType.byteCount, token_stride: tokenStride, channel_stride: channelStride,
            element_type: Int32(elementType.rawValue), dim: UInt32(dim))
    }
}

/// A tensor `[heads, tokens, dim]` in memory that the caller owns, to read from.
///
/// The memory must stay as it is while the view is in use; a view neither owns nor copies it. It need not be aligned.
public struct TensorView: @unchecked Sendable {
    let base: UnsafeRawPointer
    public let elementType: ElementType
    public let layout: TensorLayout

    /// - Parameters:
    ///   - bytes: all memory that the view may touch.
    ///   - offset: where in `bytes` the element [0, 0, 0] lies.
    /// - Throws: `CodecError.Code.invalidArgument` when an element would lie outside `bytes`.
    public init(
        bytes: UnsafeRawBufferPointer, offset: Int = 0, elementType: ElementType, layout: TensorLayout
    ) throws(CodecError) {
        try layout.check(elementType: elementType, offset: offset, byteCount: bytes.count)
        self.base = bytes.baseAddress.map { $0 + offset } ?? UnsafeRawPointer(bitPattern: 1).unsafelyUnwrapped
        self.elementType = elementType
        self.layout = layout
    }

    private init(base: UnsafeRawPointer, elementType: ElementType, layout: TensorLayout) {
        self.base = base
        self.elementType = elementType
        self.layout = layout
    }

    public var heads: Int { layout.heads }
    public var tokens: Int { layout.tokens }
    public var dim: Int { layout.dim }

    /// The same tensor, cut to some of its tokens.
    public func tokens(_ range: Range<Int>) throws(CodecError) -> TensorView {
        let cut = try layout.tokenRange(range)
        let start = range.isEmpty ? 0 : range.lowerBound * layout.tokenStride * elementType.byteCount
        return TensorView(base: base + start, elementType: elementType, layout: cut)
    }

    func kernelHead(_ head: Int) -> kv_head { layout.kernelHead(head, base: base, elementType: elementType) }
}

/// A tensor `[heads, tokens, dim]` in memory that the caller owns, to write to.
///
/// Nothing else may touch the memory while a decode writes to it.
public struct MutableTensorView: @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    public let elementType: ElementType
    public let layout: TensorLayout

    /// - Parameters:
    ///   - bytes: all memory that the view may touch.
    ///   - offset: where in `bytes` the element [0, 0, 0] lies.
    /// - Throws: `CodecError.Code.invalidArgument` when an element would lie outside `bytes`.
    public init(
        bytes: UnsafeMutableRawBufferPointer, offset: Int = 0, elementType: ElementType, layout: TensorLayout
    ) throws(CodecError) {
        try layout.check(elementType: elementType, offset: offset, byteCount: bytes.count)
        self.base = bytes.baseAddress.map { $0 + offset } ?? UnsafeMutableRawPointer(bitPattern: 1).unsafelyUnwrapped
        self.elementType = elementType
        self.layout = layout
    }

    private init(base: UnsafeMutableRawPointer, elementType: ElementType, layout: TensorLayout) {
        self.base = base
        self.elementType = elementType
        self.layout = layout
    }

    public var heads: Int { layout.heads }
    public var tokens: Int { layout.tokens }
    public var dim: Int { layout.dim }

    /// The same tensor, cut to some of its tokens.
    public func tokens(_ range: Range<Int>) throws(CodecError) -> MutableTensorView {
        let cut = try layout.tokenRange(range)
        let start = range.isEmpty ? 0 : range.lowerBound * layout.tokenStride * elementType.byteCount
        return MutableTensorView(base: base + start, elementType: elementType, layout: cut)
    }

    func kernelHead(_ head: Int) -> kv_head {
        layout.kernelHead(head, base: UnsafeRawPointer(base), elementType: elementType)
    }
}
