import KVCodec
public import ReelKV
import Locking

extension Store {
    /// Restores a stored prefix as the states of an engine's caches, one per layer of the model: full ones, and rotating ones for layers with
    /// a sliding window.
    ///
    /// ```swift
    /// for (cache, restored) in zip(caches, try store.cacheStates(of: match, as: MLXArray.self)) {
    ///     var cache = cache
    ///     cache.state = restored.state
    ///     cache.metaState = restored.metaState
    /// }
    /// ```
    ///
    /// A few layers are restored at a time: beside the arrays, it needs memory for those.
    ///
    /// - Parameters:
    ///   - count: how many of the prefix's tokens, counted from the first; nil for all. An engine needs to compute at least one token to go on:
    ///     one less than a prompt has where all of it is stored.
    ///   - threads: how many threads decode; nil for one per core.
    /// - Returns: keys and values `[1, heads, tokens, dim]` in the model's element type. Where `count` is 0 they have no arrays.
    /// - Throws: `StoreError.invalidArgument` for more tokens than the prefix has, `pageUnavailable` as
    ///   ``ReelKV/Store/restore(_:layers:tokens:threads:into:onLayer:)`` does, and where a sliding window's last tokens are not stored before `count`.
    public func cacheStates<Element: CacheArray>(
        of prefix: StoredPrefix, as element: Element.Type = Element.self, tokens count: Int? = nil, threads: Int? = nil
    ) throws -> [CacheState<Element>] {
        let count = count ?? prefix.tokenCount
        guard (0...prefix.tokenCount).contains(count) else {
            throw StoreError(.invalidArgument, "\(count) tokens are not within the \(prefix.tokenCount) that are stored")
        }
        guard count > 0 else {
            return prefix.model.layers.map { CacheState(state: [], metaState: $0.emptyMetaState) }
        }
        var states: [CacheState<Element>] = []
        while states.count < prefix.model.layers.count {
            states += try cacheStates(of: prefix, group: prefix.model.group(from: states.count), tokens: count, threads: threads)
        }
        return states
    }

    /// The states of consecutive layers of one kind.
    private func cacheStates<Element: CacheArray>(
        of prefix: StoredPrefix, group: Range<Int>, tokens count: Int, threads: Int?
    ) throws -> [CacheState<Element>] {
        let type = prefix.model.elementType
        // A token attends to the window's tokens before it, and to itself.
        let window = prefix.model.layers[group.lowerBound].slidingWindow
        let rows = window.map { min($0, count) } ?? count
        var memory: [LayerMemory] = []
        let held = Mutex<[Int]>([])
        try restore(
            prefix, layers: group, tokens: count - rows..<count, threads: threads,
            into: { layer in
                let layerMemory = LayerMemory(prefix.model.layers[layer], tokens: rows, type)
                memory.append(layerMemory)
                return try layerMemory.destination
            },
            onLayer: { restored in held.withLock { $0.append(restored.firstToken) } })
        return try zip(memory, held.withLock { $0 }).map { memory, firstToken in
            // The oldest row of a full window is overwritten by the next token without being read, so that it may be missing.
            guard firstToken == 0 || (firstToken == 1 && rows == window) else {
                throw StoreError(
                    .pageUnavailable,
                    "the last \(rows) tokens of a sliding window are not all stored before token \(count): match again")
            }
            return CacheState(
                state: try memory.arrays(), metaState: memory.geometry.metaState(tokens: count, rows: rows))
        }
    }
}

extension ModelSpec {
    /// Layers restored at a time: enough to keep all cores busy, few enough that the memory for them is small beside the cache.
    private static var groupSize: Int { 4 }

    /// The layers from `first` on that are restored together: of one kind.
    fileprivate func group(from first: Int) -> Range<Int> {
        let window = layers[first].slidingWindow
        let alike = layers[first...].prefix { $0.slidingWindow == window }.count
        return first..<first + min(alike, Self.groupSize)
    }
}

extension LayerGeometry {
    fileprivate var emptyMetaState: [String] { metaState(tokens: 0, rows: 0) }

    fileprivate func metaState(tokens: Int, rows: Int) -> [String] {
        slidingWindow.map { RotatingState(maxSize: $0, offset: tokens, nextRow: rows).metaState } ?? [""]
    }
}

/// Memory for one layer's keys and values, `[1, heads, tokens, dim]` each, zero where nothing is restored.
private final class LayerMemory {
    let geometry: LayerGeometry
    private let tokens: Int
    private let elementType: ElementType
    private let key: UnsafeMutableRawBufferPointer
    private let value: UnsafeMutableRawBufferPointer

    init(_ geometry: LayerGeometry, tokens: Int, _ elementType: ElementType) {
        self.geometry = geometry
        self.tokens = tokens
        self.elementType = elementType
        let allocate = { (dim: Int) in
            let bytes = UnsafeMutableRawBufferPointer.allocate(
                byteCount: geometry.keyValueHeads * tokens * dim * elementType.byteCount, alignment: 64)
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
            return bytes
        }
        key = allocate(geometry.keyDim)
        value = allocate(geometry.valueDim)
    }

    deinit {
        key.deallocate()
        value.deallocate()
    }

    var destination: LayerDestination {
        get throws { LayerDestination(key: try view(key, geometry.keyDim), value: try view(value, geometry.valueDim)) }
    }

    private func view(_ bytes: UnsafeMutableRawBufferPointer, _ dim: Int) throws -> MutableTensorView {
        try MutableTensorView(
            bytes: bytes, elementType: elementType,
            layout: .headsFirst(heads: geometry.keyValueHeads, tokens: tokens, dim: dim))
    }

    func arrays<Element: CacheArray>() throws -> [Element] {
        try [(key, geometry.keyDim), (value, geometry.valueDim)].map { bytes, dim in
            try Element.makeCacheArray(
                shape: [1, geometry.keyValueHeads, tokens, dim], elementType: elementType, bytes: UnsafeRawBufferPointer(bytes))
        }
    }
}
