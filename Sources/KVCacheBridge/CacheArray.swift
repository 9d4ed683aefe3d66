public import KVCodec

/// An engine's array, as far as a bridge must know it: MLX's `MLXArray`, say.
///
/// An engine's package makes its array type conform, so that this one needs to know of no engine. <doc:KVCacheBridge> has the
/// conformance of MLX's.
public protocol CacheArray {
    /// Sizes, one per dimension. A cache's arrays are `[batch, heads, tokens, dim]`.
    var cacheShape: [Int] { get }

    /// The type of the elements; nil for one that no cache holds, such as quantized codes.
    var cacheElementType: ElementType? { get }

    /// Calls `body` with the array's memory, evaluated and in the processor's reach, and how many elements lie from one index to the next
    /// in each dimension. Element `[0, 0, 0, 0]` lies first. The memory is not used after `body` has returned.
    func withCacheMemory<R>(_ body: (_ bytes: UnsafeRawBufferPointer, _ strides: [Int]) throws -> R) throws -> R

    /// Makes an array of elements that lie one after the other in row-major order. `bytes` is valid only until this returns.
    static func makeCacheArray(
        shape: [Int], elementType: ElementType, bytes: UnsafeRawBufferPointer
    ) throws -> Self
}

/// What one layer's cache consists of, in the form in which mlx-swift-lm's `KVCache` gives and takes it.
public struct CacheState<Element: CacheArray> {
    /// Keys and values, `[1, heads, tokens, dim]` each; nothing where the cache is empty.
    public var state: [Element]
    /// Of a rotating cache: `keep`, `maxSize`, `step`, `offset` and `idx`, in decimal. Of others: nothing, or one empty string.
    public var metaState: [String]

    public init(state: [Element], metaState: [String] = [""]) {
        self.state = state
        self.metaState = metaState
    }
}
