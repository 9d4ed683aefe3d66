import KVCodec
public import ReelKV

extension SequenceWriter {
    /// Appends tokens whose keys and values are the newest ones in an engine's caches.
    ///
    /// - Parameters:
    ///   - tokens: the new tokens alone, as in `append(_:layers:)`.
    ///   - caches: one per layer of the model. Each has seen exactly the tokens that the writer has, and the new ones. The arrays' memory is
    ///     read before this returns, without a copy but for rotating caches that have wrapped around.
    /// - Throws: `StoreError.modelMismatch` for caches of another shape, type or number of tokens, and for rotating caches that lack
    ///   tokens which the model attends to; nothing is taken then, and the writer can go on. Else as `append(_:layers:)`.
    public func append<Element>(_ tokens: TokenSequence, from caches: [CacheState<Element>]) throws {
        guard caches.count == model.layers.count else {
            throw StoreError(
                .modelMismatch, "the model '\(model.name)' has \(model.layers.count) layers, not \(caches.count) caches")
        }
        try appendLayers(of: caches, tokens, read: [])
    }

    /// Reads one layer after the other, each inside the access to the memory of those before it.
    private func appendLayers<Element>(
        of caches: [CacheState<Element>], _ tokens: TokenSequence, read layers: [LayerTokens]
    ) throws {
        guard layers.count < caches.count else { return try append(tokens, layers: layers) }
        let layer = layers.count
        let cache = caches[layer]
        let rotation = RotatingState(metaState: cache.metaState)
        try cache.check(layer, of: model, rotation: rotation, tokenCount: tokenCount + tokens.count)
        if tokens.count == 0 { return }
        try cache.state[0].withRows(rotation: rotation, model.elementType) { key in
            try cache.state[1].withRows(rotation: rotation, model.elementType) { value in
                let newest = max(0, key.tokens - tokens.count)..<key.tokens
                let read = LayerTokens(key: try key.tokens(newest), value: try value.tokens(newest))
                try appendLayers(of: caches, tokens, read: layers + [read])
            }
        }
    }
}

extension CacheArray {
    fileprivate func withRows<R>(
        rotation: RotatingState?, _ elementType: ElementType, _ body: (TensorView) throws -> R
    ) throws -> R {
        try withCacheMemory { bytes, strides in
            guard strides.count == 4 else {
                throw StoreError(.invalidArgument, "an array of 4 dimensions came with \(strides.count) strides")
            }
            let rows: CacheRows
            do {
                rows = try CacheRows(
                    bytes: bytes, shape: cacheShape, strides: strides, elementType: elementType, rotation: rotation)
            } catch {
                throw StoreError(.invalidArgument, "\(error)")
            }
            return try withExtendedLifetime(rows) { try body(rows.view) }
        }
    }
}

extension CacheState {
    /// Throws unless the cache can be layer `layer`'s, after `tokenCount` tokens.
    fileprivate func check(_ layer: Int, of model: ModelSpec, rotation: RotatingState?, tokenCount: Int) throws {
        func mismatch(_ what: String) -> StoreError { StoreError(.modelMismatch, "layer \(layer)'s cache \(what)") }

        if state.isEmpty, tokenCount == 0 { return }
        guard state.count == 2 else {
            throw mismatch(
                "has a state of \(state.count) arrays, not of keys and values: quantized and compound caches cannot be stored")
        }
        let geometry = model.layers[layer]
        for (what, array, dim) in [("keys", state[0], geometry.keyDim), ("values", state[1], geometry.valueDim)] {
            let shape = array.cacheShape
            guard shape.count == 4, shape[0] == 1, shape[1] == geometry.keyValueHeads, shape[3] == dim else {
                throw mismatch("has \(what) of \(shape), the model has [1, \(geometry.keyValueHeads), tokens, \(dim)]")
            }
            guard array.cacheElementType == model.elementType else {
                throw mismatch(
                    "has \(what) of \(array.cacheElementType?.name ?? "another element type"), the model has \(model.elementType.name)"
                )
            }
        }
        guard state[0].cacheShape[2] == state[1].cacheShape[2] else {
            throw mismatch("has \(state[0].cacheShape[2]) tokens of keys, but \(state[1].cacheShape[2]) of values")
        }
        let rows = state[0].cacheShape[2]
        let seen = rotation?.offset ?? rows
        guard seen == tokenCount else {
            throw mismatch("has seen \(seen) tokens, but the sequence has \(tokenCount) with those appended")
        }
        guard let rotation, seen > rows else { return }
        guard rotation.keep == 0 else {
            throw mismatch(
                "keeps its first \(rotation.keep) tokens and has dropped others: what is left is not one run of tokens")
        }
        guard let window = geometry.slidingWindow, rows >= min(window - 1, tokenCount) else {
            throw mismatch("has dropped tokens that the model attends to: \(rows) of \(seen) are left")
        }
    }
}
