import KVCodec

/// Memory for one page of every layer, in which the tokens of an unfinished page wait until it is full.
///
/// Holds keys and values as `[heads, P, dim]` per layer, in the model's element type. Knows which tokens are there; nothing of
/// nodes or of the index.
final class PageStaging {
    private struct Layer {
        var geometry: LayerGeometry
        var keyOffset: Int
        var valueOffset: Int
        /// The first staged token of the page that the layer holds: later than others where a sliding window dropped tokens.
        var presentFrom: Int
    }

    private let elementType: ElementType
    private let pageTokens: Int
    private let memory: UnsafeMutableRawBufferPointer
    private var layers: [Layer]
    /// The first token of the page whose tensors were appended; those before it lie in the store.
    private(set) var firstStagedToken: Int
    private var end: Int
    /// A whole page that lies in the caller's memory, and is not copied.
    private var borrowed: [LayerInput?]?

    init(model: ModelSpec, pageTokens: Int, firstStagedToken: Int) {
        elementType = model.elementType
        self.pageTokens = pageTokens
        var offset = 0
        layers = model.layers.map { geometry in
            let rows = geometry.keyValueHeads * pageTokens * model.elementType.byteCount
            defer { offset += rows * (geometry.keyDim + geometry.valueDim) }
            return Layer(
                geometry: geometry, keyOffset: offset, valueOffset: offset + rows * geometry.keyDim,
                presentFrom: firstStagedToken)
        }
        memory = .allocate(byteCount: max(offset, 1), alignment: 64)
        self.firstStagedToken = firstStagedToken
        end = firstStagedToken
    }

    deinit { memory.deallocate() }

    var layerCount: Int { layers.count }

    /// Copies tokens `chunk`, of the `count` being appended, to the page's tokens from `start` on.
    func stage(_ appended: [LayerTokens], chunk: Range<Int>, of count: Int, at start: Int) throws {
        for (index, tensors) in appended.enumerated() {
            let lacking = count - tensors.key.tokens  // a sliding-window layer may hold only the last tokens
            let present = max(chunk.lowerBound, lacking)..<max(chunk.upperBound, lacking)
            if lacking > chunk.lowerBound {
                layers[index].presentFrom = start + min(lacking, chunk.upperBound) - chunk.lowerBound
            }
            if present.isEmpty { continue }
            let source = present.lowerBound - lacking..<present.upperBound - lacking
            let target = start + present.lowerBound - chunk.lowerBound..<start + present.upperBound - chunk.lowerBound
            try tensors.key.tokens(source).copy(to: try key(index).tokens(target))
            try tensors.value.tokens(source).copy(to: try value(index).tokens(target))
        }
        end = start + chunk.count
    }

    /// Takes a whole page, of tokens `chunk` of the `count` being appended, as it lies in the caller's memory, which stays as it is
    /// until `clear`.
    func borrow(_ appended: [LayerTokens], chunk: Range<Int>, of count: Int) throws {
        borrowed = try appended.enumerated().map { index, tensors in
            let lacking = count - tensors.key.tokens
            let present = max(chunk.lowerBound, lacking)..<max(chunk.upperBound, lacking)
            layers[index].presentFrom = min(max(lacking, chunk.lowerBound), chunk.upperBound) - chunk.lowerBound
            if present.isEmpty { return nil }
            let source = present.lowerBound - lacking..<present.upperBound - lacking
            return LayerInput(
                geometry: layers[index].geometry, key: try tensors.key.tokens(source), value: try tensors.value.tokens(source),
                firstToken: layers[index].presentFrom)
        }
        end = chunk.count
    }

    /// Makes the memory ready for the next page.
    func clear() {
        borrowed = nil
        firstStagedToken = 0
        end = 0
        for index in layers.indices { layers[index].presentFrom = 0 }
    }

    /// The first token of `tokens` from which every layer is present; `tokens.lowerBound` when none lacks any.
    func completeFrom(_ tokens: Range<Int>) -> Int {
        layers.map { min(max($0.presentFrom, tokens.lowerBound), tokens.upperBound) }.max() ?? tokens.lowerBound
    }

    /// What a page of `tokens` is encoded from: all of those that are borrowed. A layer that holds none of them is nil.
    func layers(_ tokens: Range<Int>) throws -> [LayerInput?] {
        if let borrowed { return borrowed }
        return try layers.indices.map { index in
            let first = max(layers[index].presentFrom, tokens.lowerBound)
            guard first < tokens.upperBound else { return nil }
            return LayerInput(
                geometry: layers[index].geometry,
                key: try keyView(index).tokens(first..<tokens.upperBound),
                value: try valueView(index).tokens(first..<tokens.upperBound), firstToken: first - tokens.lowerBound)
        }
    }

    /// Where the page's tokens that lie in the store are read to: `tokens` of one layer.
    func destination(_ layer: Int, tokens: Range<Int>) throws -> LayerDestination {
        LayerDestination(key: try key(layer).tokens(tokens), value: try value(layer).tokens(tokens))
    }

    /// Makes the page's stored tokens, which are about to be read back, count as present, but for layers that lack later ones.
    func beginRestore() {
        for index in layers.indices where layers[index].presentFrom == firstStagedToken { layers[index].presentFrom = 0 }
    }

    /// Notes that the store holds a layer's tokens only from `first` on.
    func noteRestored(_ layer: Int, from first: Int) {
        layers[layer].presentFrom = max(layers[layer].presentFrom, first)
    }

    // MARK: - Views

    private func layout(_ geometry: LayerGeometry, dim: Int) -> TensorLayout {
        .headsFirst(heads: geometry.keyValueHeads, tokens: pageTokens, dim: dim)
    }

    private func key(_ index: Int) throws -> MutableTensorView {
        let layer = layers[index]
        return try MutableTensorView(
            bytes: memory, offset: layer.keyOffset, elementType: elementType,
            layout: layout(layer.geometry, dim: layer.geometry.keyDim))
    }

    private func value(_ index: Int) throws -> MutableTensorView {
        let layer = layers[index]
        return try MutableTensorView(
            bytes: memory, offset: layer.valueOffset, elementType: elementType,
            layout: layout(layer.geometry, dim: layer.geometry.valueDim))
    }

    private func keyView(_ index: Int) throws -> TensorView {
        let layer = layers[index]
        return try TensorView(
            bytes: UnsafeRawBufferPointer(memory), offset: layer.keyOffset, elementType: elementType,
            layout: layout(layer.geometry, dim: layer.geometry.keyDim))
    }

    private func valueView(_ index: Int) throws -> TensorView {
        let layer = layers[index]
        return try TensorView(
            bytes: UnsafeRawBufferPointer(memory), offset: layer.valueOffset, elementType: elementType,
            layout: layout(layer.geometry, dim: layer.geometry.valueDim))
    }
}
