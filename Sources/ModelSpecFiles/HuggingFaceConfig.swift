import KVCodec
import ReelKV

/// Reads the `config.json` of a Hugging Face model, as transformers 4 and 5 write it: flat, or with the language model under
/// `text_config`.
func readHuggingFaceConfig(_ file: Fields) throws(ModelSpecFileError) -> ModelShape {
    var config = file
    for name in ["text_config", "llm_config"] {
        // Some vision models keep the language model's fields outside of an almost empty text_config.
        if let text = try file.object(name), text.has("num_hidden_layers") || !file.has("num_hidden_layers") {
            config = text
            break
        }
    }
    let hasType = ["dtype", "torch_dtype"].contains { config.has($0) }
    let type = try elementType(["dtype", "torch_dtype"], hasType ? config : file)
    let outerType = try file.string("model_type")
    return try HuggingFaceConfig(config, modelType: try config.string("model_type") ?? outerType ?? "").shape(type)
}

/// The language model's part of a config, with what its class assumes where the file says nothing.
private struct HuggingFaceConfig {
    let fields: Fields
    let modelType: String
    let layerCount: Int
    let headDim: Int
    let keyValueHeads: Int
    let context: Double?

    /// Fields that files leave to the defaults of the model's class.
    private static let classDefaults: [String: [String: Int]] = [
        "llama": ["num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096],
        "gemma3_text": [
            "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096,
        ],
    ]

    /// Models that rotate channel i together with channel i + n.
    private static let halvesTypes: Set<String> = [
        "gemma", "gemma2", "gemma3", "gemma3_text", "granite", "internlm2", "llama", "ministral", "mistral", "mixtral", "olmo",
        "olmo2", "phi", "phi3", "qwen2", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen3",
        "qwen3_moe", "smollm3", "stablelm", "starcoder2",
    ]
    /// Models that rotate neighbouring channels.
    private static let interleavedTypes: Set<String> = ["cohere", "cohere2", "ernie4_5", "glm", "glm4", "gptj"]

    /// Every n-th layer attends to all tokens, where the file does not say which do.
    private static let slidingPatterns = ["gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4]

    init(_ fields: Fields, modelType: String) throws(ModelSpecFileError) {
        self.fields = fields
        self.modelType = modelType
        let defaults = Self.classDefaults[modelType] ?? [:]
        func count(_ name: String, _ range: ClosedRange<Int>) throws(ModelSpecFileError) -> Int? {
            try fields.integer(name, in: range) ?? defaults[name]
        }
        guard !fields.has("kv_lora_rank") else {
            throw fields.error(
                "kv_lora_rank",
                "means latent attention, whose cache depends on the engine; write a model spec with its key_dim and value_dim.")
        }
        guard try fields.integer("num_kv_shared_layers", in: 0...ModelSpec.layersMax) ?? 0 == 0 else {
            throw fields.error(
                "num_kv_shared_layers", "means that some layers have no cache; write a model spec of those that have one.")
        }
        layerCount = try fields.required(
            try count("num_hidden_layers", 1...ModelSpec.layersMax), "num_hidden_layers", "the number of layers")
        let headCount = try count("num_attention_heads", 1...LayerGeometry.headsMax)
        keyValueHeads = try fields.required(
            try count("num_key_value_heads", 1...LayerGeometry.headsMax) ?? headCount, "num_attention_heads",
            "the number of query heads")
        if let dim = try count("head_dim", 1...LayerGeometry.dimMax) {
            headDim = dim
        } else {
            let heads = try fields.required(headCount, "num_attention_heads", "the number of query heads")
            let hidden = try fields.required(
                try count("hidden_size", 1...LayerGeometry.headsMax * LayerGeometry.dimMax), "hidden_size",
                "the model's width; or give head_dim")
            guard hidden.isMultiple(of: heads), hidden / heads <= LayerGeometry.dimMax else {
                throw fields.error(
                    "hidden_size",
                    "is \(hidden), which \(heads) heads do not divide into head dims of 1 to \(LayerGeometry.dimMax); give head_dim."
                )
            }
            headDim = hidden / heads
        }
        context = try fields.positive("max_position_embeddings")
    }

    func shape(_ elementType: ElementType) throws(ModelSpecFileError) -> ModelShape {
        var warnings: [String] = []
        let windows = try slidingWindows()
        let full = try rotation(isSliding: false, &warnings)
        let sliding = try rotation(isSliding: true, &warnings)
        // SmolLM3: 1 where a layer is rotated.
        let rotated = try fields.perLayer(
            "no_rope_layers", layerCount: layerCount, in: 0...1)
        let layers = (0..<layerCount).map { layer in
            let rotary = windows[layer] == nil ? full : sliding
            return LayerGeometry(
                keyValueHeads: keyValueHeads, keyDim: headDim, valueDim: headDim, slidingWindow: windows[layer],
                rotary: rotated?[layer] == 0 ? nil : rotary)
        }
        return ModelShape(elementType: elementType, layers: layers, warnings: warnings)
    }

    // MARK: - Sliding windows

    /// The window of each layer, nil where it attends to all tokens.
    private func slidingWindows() throws(ModelSpecFileError) -> [Int?] {
        let none = [Int?](repeating: nil, count: layerCount)
        let window =
            try fields.integer("sliding_window", in: 1...slidingWindowMax) ?? Self.classDefaults[modelType]?["sliding_window"]
        if let kinds = try fields.array("layer_types") {
            try fields.checkCount(kinds.count, "layer_types", layerCount)
            var result: [Int?] = []
            for (layer, kind) in kinds.enumerated() {
                switch kind {
                case .string("full_attention"): result.append(nil)
                case .string("sliding_attention"):
                    result.append(try fields.required(window, "sliding_window", "the tokens that a sliding layer attends to"))
                default:
                    throw fields.error(
                        "layer_types[\(layer)]",
                        "is \(kind.kind), but only full_attention and sliding_attention have a cache of keys and values; "
                            + "write a model spec of the layers that have one.")
                }
            }
            return result
        }
        guard let window else { return none }
        let isQwen = modelType.hasPrefix("qwen")
        guard try fields.bool("use_sliding_window") ?? !isQwen else { return none }
        let every = try fields.integer("sliding_window_pattern", in: 1...ModelSpec.layersMax) ?? Self.slidingPatterns[modelType]
        let first = isQwen ? try fields.integer("max_window_layers", in: 0...ModelSpec.layersMax) ?? 28 : 0
        return (0..<layerCount).map { layer in
            let isFull = every.map { (layer + 1).isMultiple(of: $0) } ?? (layer < first)
            return isFull ? nil : window
        }
    }

    // MARK: - Rotation

    /// The rotation of the layers that attend to all tokens, or of those that do not.
    private func rotation(
        isSliding: Bool, _ warnings: inout [String]
    ) throws(ModelSpecFileError) -> RotaryParameters? {
        let parameters = try rotaryFields(isSliding: isSliding)
        let pairing: RotaryParameters.Pairing
        if Self.halvesTypes.contains(modelType) {
            pairing = .halves
        } else if Self.interleavedTypes.contains(modelType) {
            pairing = .interleaved
        } else {
            addOnce(
                "How a model of type '\(modelType.prefix(60))' rotates its keys is not known: they are quantized as they are, "
                    + "with a larger error. A model spec with 'rope' can say it.", to: &warnings)
            return nil
        }
        let outerShare = try fields.positive("partial_rotary_factor")
        let share = try parameters?.positive("partial_rotary_factor") ?? outerShare ?? 1
        let dim = Int((Double(headDim) * min(share, 1)).rounded(.down)) / 2 * 2
        guard dim >= 2 else { return nil }
        let theta = try theta(parameters, isSliding: isSliding)
        guard theta > 1 else { throw fields.error("rope_theta", "must be above 1.") }
        if try parameters?.bool("mrope_interleaved") ?? false {
            addOnce(unknownScaling("interleaved M-RoPE"), to: &warnings)
            return nil
        }
        switch try parameters?.rotaryScaling(context: context) ?? .known(.none) {
        case .unknown(let type):
            addOnce(unknownScaling(type), to: &warnings)
            return nil
        case .known(let scaling):
            var sections: [Int]?
            if let parameters { sections = try positionSections(parameters, pairCount: dim / 2) }
            return RotaryParameters(
                inverseFrequencies: scaling.inverseFrequencies(theta: theta, dim: dim), pairing: pairing, sections: sections)
        }
    }

    /// transformers 5 has `rope_parameters`, one for all layers or one for each kind; 4 has `rope_scaling`.
    private func rotaryFields(isSliding: Bool) throws(ModelSpecFileError) -> Fields? {
        if let parameters = try fields.object("rope_parameters") {
            let kind = isSliding ? "sliding_attention" : "full_attention"
            let isPerKind = parameters.has("sliding_attention") || parameters.has("full_attention")
            return isPerKind ? try parameters.object(kind) : parameters
        }
        // Gemma 3's sliding layers have frequencies of their own, which are not scaled.
        if isSliding, hasLocalRotation { return nil }
        return try fields.object("rope_scaling")
    }

    private var hasLocalRotation: Bool { fields.has("rope_local_base_freq") || modelType.hasPrefix("gemma3") }

    private func theta(_ parameters: Fields?, isSliding: Bool) throws(ModelSpecFileError) -> Double {
        if let theta = try parameters?.positive("rope_theta") { return theta }
        if isSliding, hasLocalRotation { return try fields.positive("rope_local_base_freq") ?? 10_000 }
        return try fields.positive("rope_theta") ?? (modelType.hasPrefix("gemma3") ? 1_000_000 : 10_000)
    }
}
