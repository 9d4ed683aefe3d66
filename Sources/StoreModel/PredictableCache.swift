import KVCodec
package import ReelKV

/// Keys and values that follow from the tokens alone, so that what comes back can be checked by whoever knows those.
package struct PredictableCache {
    package static let layers = 2
    package static let heads = 2
    package static let dim = 32
    package static let model = ModelSpec(
        name: "predictable", fingerprint: Digest(hex: String(repeating: "c7", count: 32)) ?? .zero, elementType: .bfloat16,
        layers: Array(
            repeating: LayerGeometry(
                keyValueHeads: heads, keyDim: dim, valueDim: dim, rotary: RotaryParameters(theta: 10_000, dim: dim)),
            count: layers))

    package let tokens: TokenSequence
    /// Of each token and all before it.
    private let states: [UInt64]

    package init(_ ids: [Int32]) throws {
        tokens = try TokenSequence(ids: ids)
        var state: UInt64 = 1
        states = ids.map { id in
            state = Self.mix(state ^ Self.mix(UInt64(UInt32(bitPattern: id)) + 1))
            return state
        }
    }

    private static func mix(_ value: UInt64) -> UInt64 {
        var generator = SplitMix64(seed: value)
        return generator.next()
    }

    /// `[heads, tokens, dim]` of a layer's keys or values, as bits of bfloat16: from 0.5 to 2, with a sign.
    package func bits(layer: Int, isKey: Bool, _ range: Range<Int>) -> [UInt16] {
        var bits: [UInt16] = []
        bits.reserveCapacity(Self.heads * range.count * Self.dim)
        for head in 0..<Self.heads {
            for state in states[range] {
                var random = SplitMix64(seed: state &+ UInt64(layer * 64 + head * 2 + (isKey ? 1 : 0)))
                for _ in 0..<Self.dim / 4 {
                    let word = random.next()
                    for part in 0..<4 {
                        let value = UInt16(truncatingIfNeeded: word >> (16 * UInt64(part)))
                        bits.append(value & 0x80FF | 0x3F00)
                    }
                }
            }
        }
        return bits
    }

    /// Appends tokens to a writer.
    package func append(_ range: Range<Int>, to writer: SequenceWriter) throws {
        let layout = TensorLayout.headsFirst(heads: Self.heads, tokens: range.count, dim: Self.dim)
        let memory = (0..<Self.layers).map { layer in
            (key: bits(layer: layer, isKey: true, range), value: bits(layer: layer, isKey: false, range))
        }
        var layers: [LayerTokens] = []
        for layer in memory {
            layers.append(
                LayerTokens(
                    key: try Self.view(layer.key, layout), value: try Self.view(layer.value, layout)))
        }
        try writer.append(tokens[range], layers: layers)
        withExtendedLifetime(memory) {}
    }

    /// A view of an array's own memory, which the caller keeps.
    private static func view(_ bits: [UInt16], _ layout: TensorLayout) throws -> TensorView {
        try bits.withUnsafeBytes { try TensorView(bytes: $0, elementType: .bfloat16, layout: layout) }
    }

    /// What a store gives back for a prefix of these tokens must be these tensors, or as far from them as the prefix says.
    ///
    /// - Returns: what is wrong; nil when nothing is.
    package func fault(of prefix: StoredPrefix, in store: Store) throws -> String? {
        let count = prefix.tokenCount
        guard count > 0 else { return nil }
        let layout = TensorLayout.headsFirst(heads: Self.heads, tokens: count, dim: Self.dim)
        let bytes = layout.elementCount * 2
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Self.layers * bytes, alignment: 64)
        defer { memory.deallocate() }
        func slice(_ layer: Int, _ part: Int) -> UnsafeMutableRawBufferPointer {
            let start = (2 * layer + part) * bytes
            return UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + bytes])
        }
        try store.restore(prefix) { layer in
            LayerDestination(
                key: try MutableTensorView(bytes: slice(layer, 0), elementType: .bfloat16, layout: layout),
                value: try MutableTensorView(bytes: slice(layer, 1), elementType: .bfloat16, layout: layout))
        }
        for layer in 0..<Self.layers {
            for part in 0..<2 {
                let expected = bits(layer: layer, isKey: part == 0, 0..<count)
                let found = slice(layer, part).bindMemory(to: UInt16.self)
                if prefix.isExact {
                    guard found.elementsEqual(expected) else {
                        return "layer \(layer) has other \(part == 0 ? "keys" : "values")"
                    }
                } else {
                    let error = Self.normalizedError(found, expected)
                    // Random numbers are the worst there is to quantize, but for others' pages, which are twice as far.
                    guard error < 1 else { return "layer \(layer) is off by \(error) of its energy" }
                }
            }
        }
        return nil
    }

    private static func normalizedError(_ found: UnsafeMutableBufferPointer<UInt16>, _ expected: [UInt16]) -> Float {
        func float(_ bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }
        var (error, energy): (Float, Float) = (0, 0)
        for (one, other) in zip(found, expected) {
            let difference = float(one) - float(other)
            error += difference * difference
            energy += float(other) * float(other)
        }
        return error / max(energy, .leastNormalMagnitude)
    }
}
