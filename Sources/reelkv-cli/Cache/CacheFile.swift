import KVCodec
import ReelKV
import Safetensors

/// A KV cache in a safetensors file: `layers.N.key` and `layers.N.value`, or what mlx-lm saves (`N.0` and `N.1`).
struct CacheFile {
    /// One tensor of the cache, `[1, heads, tokens, dim]` or `[heads, tokens, dim]`.
    struct Tensor {
        var name: String
        var heads: Int
        var tokens: Int
        /// Tokens that there is room for; what lies behind `tokens` is not part of the cache.
        var room: Int
        var dim: Int
        var dataType: DataType

        var shapeText: String { "[\(heads), \(tokens), \(dim)] of \(dataType.rawValue)" }
    }

    struct Layer {
        var key: Tensor
        var value: Tensor
    }

    /// How the tensors are named.
    enum Style {
        case named
        case mlx

        func name(_ layer: Int, _ kind: TensorKind) -> String {
            switch self {
            case .named: "layers.\(layer).\(kind == .key ? "key" : "value")"
            case .mlx: "\(layer).\(kind == .key ? 0 : 1)"
            }
        }
    }

    let file: SafetensorsFile
    let style: Style
    let layers: [Layer]

    /// - Throws: `SafetensorsError`, or `Failure` when the file holds no cache.
    init(path: String) throws {
        file = try SafetensorsFile(path: path)
        style = try Self.style(of: file)
        let promptCache = style == .mlx ? PromptCacheHeader(file) : nil
        try promptCache?.checkClasses()
        var layers: [Layer] = []
        while file.tensors[style.name(layers.count, .key)] != nil || file.tensors[style.name(layers.count, .value)] != nil {
            var key = try Self.tensor(style.name(layers.count, .key), of: file)
            var value = try Self.tensor(style.name(layers.count, .value), of: file)
            if let count = try promptCache?.tokenCount(ofLayer: layers.count, room: min(key.room, value.room)) {
                (key.tokens, value.tokens) = (count, count)
            }
            guard key.tokens == value.tokens else {
                throw Failure("\(path): layer \(layers.count) has \(key.tokens) tokens of keys, but \(value.tokens) of values")
            }
            layers.append(Layer(key: key, value: value))
        }
        self.layers = layers
        try checkNumbering()
    }

    /// Tokens of the layers that hold the most; sliding-window layers may hold fewer, the last ones.
    var tokenCount: Int { layers.map(\.key.tokens).max() ?? 0 }

    // MARK: - Checks

    private static func style(of file: SafetensorsFile) throws -> Style {
        if file.names.contains(where: { isCacheName($0, .named) }) { return .named }
        if file.names.contains(where: { isCacheName($0, .mlx) }) { return .mlx }
        let some = file.names.prefix(3).map { "'\($0)'" }.joined(separator: ", ")
        throw Failure(
            "\(file.path) holds no KV cache: it needs tensors layers.N.key and layers.N.value, or N.0 and N.1 of an mlx-lm "
                + "prompt cache; it has \(some.isEmpty ? "none" : some)"
        )
    }

    private static func isCacheName(_ name: String, _ style: Style) -> Bool { layer(of: name, style) != nil }

    /// The layer that a tensor's name says it belongs to; nil when it is no tensor of a cache.
    private static func layer(of name: String, _ style: Style) -> Int? {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        switch style {
        case .named:
            guard parts.count == 3, parts[0] == "layers", parts[2] == "key" || parts[2] == "value" else { return nil }
            return Int(parts[1])
        case .mlx:
            guard parts.count == 2, parts[1] == "0" || parts[1] == "1" else { return nil }
            return Int(parts[0])
        }
    }

    private static func tensor(_ name: String, of file: SafetensorsFile) throws -> Tensor {
        let info = try file.info(of: name)
        var shape = info.shape
        if shape.count == 4, shape[0] == 1 { shape.removeFirst() }
        guard shape.count == 3 else {
            throw Failure(
                "\(file.path): tensor '\(name)' has the shape \(info.shape); a cache has [1, heads, tokens, dim] or [heads, "
                    + "tokens, dim]"
            )
        }
        return Tensor(
            name: name, heads: shape[0], tokens: shape[1], room: shape[1], dim: shape[2], dataType: info.dataType)
    }

    private func checkNumbering() throws {
        let stray = file.names.first { name in Self.layer(of: name, style).map { $0 < 0 || $0 >= layers.count } ?? false }
        if let stray {
            throw Failure(
                "\(file.path): tensor '\(stray)' does not follow the \(layers.count) layers from 0 on: number the layers 0, "
                    + "1, 2, … without gaps"
            )
        }
    }

    /// Throws unless the file's layers are those of `model`, in shape, element type and weights.
    func check(against model: ModelSpec) throws {
        if let weights = file.metadata["weights_sha256"], Digest(hex: weights) != model.fingerprint {
            throw Failure(
                "\(file.path) was made with the weights \(weights.prefix(16))…, but model '\(model.name)' has the "
                    + "fingerprint \(model.fingerprint.hex.prefix(16))…: add the model with those weights under a name of its "
                    + "own"
            )
        }
        guard layers.count == model.layers.count else {
            throw Failure("\(file.path) has \(layers.count) layers, model '\(model.name)' has \(model.layers.count)")
        }
        let tokenCount = tokenCount
        for (index, (layer, geometry)) in zip(layers, model.layers).enumerated() {
            for (tensor, dim) in [(layer.key, geometry.keyDim), (layer.value, geometry.valueDim)] {
                let isComplete = tensor.tokens == tokenCount || geometry.slidingWindow != nil
                guard tensor.heads == geometry.keyValueHeads, tensor.dim == dim, isComplete,
                    tensor.dataType.rawValue == model.elementType.name
                else {
                    throw Failure(
                        "\(file.path): tensor '\(tensor.name)' is \(tensor.shapeText); layer \(index) of model "
                            + "'\(model.name)' has [\(geometry.keyValueHeads), \(tokenCount), \(dim)] of "
                            + "\(model.elementType.name)"
                    )
                }
            }
        }
    }

    // MARK: - Reading

    /// Calls `body` with the file's own memory of tokens `range` of every layer. A layer that holds only the last tokens gives
    /// those of them that are in the range.
    func withLayers<Result>(
        _ range: Range<Int>, of model: ModelSpec, _ body: ([LayerTokens]) throws -> Result
    ) throws -> Result {
        try withLayers(range, model.elementType, from: 0, before: [], body)
    }

    private func withLayers<Result>(
        _ range: Range<Int>, _ elementType: ElementType, from index: Int, before: [LayerTokens],
        _ body: ([LayerTokens]) throws -> Result
    ) throws -> Result {
        guard index < layers.count else { return try body(before) }
        let layer = layers[index]
        return try file.withBytes(of: layer.key.name) { key in
            try file.withBytes(of: layer.value.name) { value in
                let tokens = LayerTokens(
                    key: try view(layer.key, key, elementType, range), value: try view(layer.value, value, elementType, range))
                return try withLayers(range, elementType, from: index + 1, before: before + [tokens], body)
            }
        }
    }

    private func view(
        _ tensor: Tensor, _ bytes: UnsafeRawBufferPointer, _ elementType: ElementType, _ range: Range<Int>
    ) throws -> TensorView {
        let whole = try TensorView(
            bytes: bytes, elementType: elementType,
            layout: .headsFirst(heads: tensor.heads, tokens: tensor.room, dim: tensor.dim))
        let lacking = tokenCount - tensor.tokens
        let held = max(range.lowerBound, lacking)..<max(range.upperBound, lacking)
        return try whole.tokens(held.lowerBound - lacking..<held.upperBound - lacking)
    }
}
