import KVCodec
import ReelKV

/// Reads ReelKV's own model spec; `ModelSpecFile` says what it holds.
func readOwnSpec(_ fields: Fields) throws(ModelSpecFileError) -> ModelShape {
    try fields.allowOnly([
        "layers", "kv_heads", "head_dim", "key_dim", "value_dim", "dtype", "rope", "sliding_window", "fingerprint", "name",
    ])
    let layerCount = try fields.required(
        try fields.integer("layers", in: 1...ModelSpec.layersMax), "layers", "the number of layers")
    let heads = try layerValues("kv_heads", fields, layerCount, 1...LayerGeometry.headsMax)
    let keyDims: [Int]
    let valueDims: [Int]
    let dimRange = 1...LayerGeometry.dimMax
    if fields.has("head_dim") {
        guard !fields.has("key_dim"), !fields.has("value_dim") else {
            throw fields.error("head_dim", "cannot be given together with key_dim or value_dim.")
        }
        keyDims = try layerValues("head_dim", fields, layerCount, dimRange)
        valueDims = keyDims
    } else if fields.has("key_dim") || fields.has("value_dim") {
        keyDims = try layerValues("key_dim", fields, layerCount, dimRange)
        valueDims = try layerValues("value_dim", fields, layerCount, dimRange)
    } else {
        keyDims = try layerValues("head_dim", fields, layerCount, dimRange)
        valueDims = keyDims
    }
    let windows = try fields.perLayer(
        "sliding_window", layerCount: layerCount, in: 1...slidingWindowMax, mayBeNone: true)
    var warnings: [String] = []
    let rotations = try readRotations(fields, keyDims, &warnings)
    let layers = (0..<layerCount).map { layer in
        LayerGeometry(
            keyValueHeads: heads[layer], keyDim: keyDims[layer], valueDim: valueDims[layer],
            slidingWindow: windows?[layer], rotary: rotations[layer])
    }
    return ModelShape(elementType: try elementType(["dtype"], fields), layers: layers, warnings: warnings)
}

/// More tokens than any context has.
let slidingWindowMax = 1 << 30

private func layerValues(
    _ field: String, _ fields: Fields, _ layerCount: Int, _ range: ClosedRange<Int>
) throws(ModelSpecFileError) -> [Int] {
    let values = try fields.required(
        try fields.perLayer(field, layerCount: layerCount, in: range), field,
        "a number from \(range.lowerBound) to \(range.upperBound), or an array with one for each of the \(layerCount) layers")
    return values.compactMap { $0 }
}

/// The first of `names` that is there, as an element type.
func elementType(_ names: [String], _ fields: Fields) throws(ModelSpecFileError) -> ElementType {
    for name in names {
        guard let text = try fields.string(name) else { continue }
        guard let type = ElementType(name: text) else {
            throw fields.error(name, "is \"\(text.prefix(60))\", but a cache holds float16, bfloat16 or float32.")
        }
        return type
    }
    throw fields.error(names[0], "is missing; it must be the type of the cache's elements: float16, bfloat16 or float32.")
}

// MARK: - Rotation

private func readRotations(
    _ fields: Fields, _ keyDims: [Int], _ warnings: inout [String]
) throws(ModelSpecFileError) -> [RotaryParameters?] {
    guard let value = fields.value("rope") else {
        // An explicit null says that the model has no rotation; saying nothing may be an oversight.
        if fields.members["rope"] == nil {
            warnings.append(
                "The spec says nothing of 'rope': keys are quantized as they are, with a larger error if they are rotated.")
        }
        return Array(repeating: nil, count: keyDims.count)
    }
    var result: [RotaryParameters?] = []
    if case .array(let entries) = value {
        try fields.checkCount(entries.count, "rope", keyDims.count)
        for (layer, entry) in entries.enumerated() {
            if entry == .null {
                result.append(nil)
            } else {
                let rope = try fields.object(entry, "rope[\(layer)]")
                result.append(try readRotation(rope, keyDim: keyDims[layer], &warnings))
            }
        }
    } else {
        let rope = try fields.object(value, "rope")
        for keyDim in keyDims { result.append(try readRotation(rope, keyDim: keyDim, &warnings)) }
    }
    return result
}

/// One rotation, or nil with a warning where its kind is not known.
private func readRotation(
    _ rope: Fields, keyDim: Int, _ warnings: inout [String]
) throws(ModelSpecFileError) -> RotaryParameters? {
    try rope.allowOnly(["theta", "dim", "interleaved", "mrope_section", "scaling", "inv_freq"])
    let pairing: RotaryParameters.Pairing = try rope.bool("interleaved") ?? false ? .interleaved : .halves
    let frequencies: [Float]
    if rope.has("inv_freq") {
        guard !rope.has("theta"), !rope.has("scaling"), !rope.has("dim") else {
            throw rope.error("inv_freq", "stands for theta, dim and scaling; give either it or them.")
        }
        frequencies = try readFrequencies(rope, keyDim: keyDim)
    } else {
        guard keyDim >= 2 else { throw rope.error("theta", "cannot rotate keys of \(keyDim) channel.") }
        let theta = try rope.required(try rope.positive("theta"), "theta", "the base of the rotation, such as 10000")
        let dim = try rope.integer("dim", in: 2...keyDim) ?? keyDim - keyDim % 2
        guard dim.isMultiple(of: 2) else { throw rope.error("dim", "must be even: channels are rotated in pairs.") }
        guard theta > 1 else { throw rope.error("theta", "must be above 1.") }
        switch try rope.object("scaling")?.rotaryScaling(context: nil) ?? .known(.none) {
        case .known(let scaling): frequencies = scaling.inverseFrequencies(theta: theta, dim: dim)
        case .unknown(let type):
            addOnce(unknownScaling(type), to: &warnings)
            return nil
        }
    }
    let sections = try positionSections(rope, pairCount: frequencies.count)
    return RotaryParameters(inverseFrequencies: frequencies, pairing: pairing, sections: sections)
}

private func readFrequencies(_ rope: Fields, keyDim: Int) throws(ModelSpecFileError) -> [Float] {
    let values = try rope.array("inv_freq") ?? []
    guard (1...max(1, keyDim / 2)).contains(values.count) else {
        throw rope.error(
            "inv_freq", "has \(values.count) entries, but keys of \(keyDim) channels have 1 to \(keyDim / 2) pairs.")
    }
    var result: [Float] = []
    for (index, value) in values.enumerated() {
        guard case .number(let number) = value, Float(number).isFinite else {
            throw rope.error("inv_freq[\(index)]", "must be a finite number of radians per position, not \(value.kind).")
        }
        result.append(Float(number))
    }
    return result
}

/// M-RoPE: pairs that follow each of the three position streams.
func positionSections(_ rope: Fields, pairCount: Int) throws(ModelSpecFileError) -> [Int]? {
    guard let sections = try rope.integers("mrope_section", in: 0...LayerGeometry.dimMax) else { return nil }
    guard sections.count == 3, sections.reduce(0, +) == pairCount else {
        throw rope.error(
            "mrope_section",
            "is \(sections), but must be three numbers (time, height, width) that add up to the \(pairCount) rotated pairs.")
    }
    return sections
}

func unknownScaling(_ type: String) -> String {
    "The rotary scaling '\(type.prefix(60))' is not known: keys are quantized as they are, with a larger error. "
        + "A spec with 'rope': {'inv_freq': [...]} can describe any fixed rotation."
}

func addOnce(_ warning: String, to warnings: inout [String]) {
    if !warnings.contains(warning) { warnings.append(warning) }
}
