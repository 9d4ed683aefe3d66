import ArgumentParser
import KVCodec
import KVMetrics
import ReelKV
import Safetensors

/// A captured cache with the real queries that follow it: `layers.N.key`, `.value` and `.query` of a safetensors file.
struct CacheFixture {
    let file: SafetensorsFile
    let model: ModelSpec
    let sample: CacheSample

    /// - Parameter theta: the base of the rotary embedding; nil for the file's own `rope_theta`.
    init(path: String, theta: Double?) throws {
        file = try SafetensorsFile(path: path)
        guard let theta = theta ?? file.metadata["rope_theta"].flatMap(Double.init) else {
            throw ValidationError("\(path) does not say its rope_theta: give --theta")
        }
        var layers: [CacheSample.Layer] = []
        while file.tensors["layers.\(layers.count).key"] != nil {
            let name = "layers.\(layers.count)"
            let key = try Self.view(file, name + ".key")
            let value = try Self.view(file, name + ".value")
            let queries = file.tensors[name + ".query"] == nil ? nil : try Self.view(file, name + ".query")
            layers.append(
                CacheSample.Layer(
                    geometry: LayerGeometry(
                        keyValueHeads: key.heads, keyDim: key.dim, valueDim: value.dim,
                        rotary: RotaryParameters(theta: theta, dim: key.dim)),
                    key: key, value: value, queries: queries))
        }
        guard let first = layers.first else { throw ValidationError("\(path) holds no layers.0.key") }
        sample = CacheSample(elementType: first.key.elementType, tokenCount: first.key.tokens, layers: layers)
        model = ModelSpec(
            name: "fixture", fingerprint: .blake2b(Array(path.utf8)), elementType: first.key.elementType,
            layers: layers.map(\.geometry))
    }

    /// The view stays valid as long as the file is open, which this value keeps it.
    private static func view(_ file: SafetensorsFile, _ name: String) throws -> TensorView {
        let info = try file.info(of: name)
        guard let type = ElementType(name: info.dataType.rawValue), info.shape.count == 4, info.shape[0] == 1 else {
            throw ValidationError("\(file.path): \(name) is no [1, heads, tokens, dim] of F16, BF16 or F32")
        }
        return try file.withBytes(of: name) { bytes in
            try TensorView(
                bytes: bytes, elementType: type,
                layout: .headsFirst(heads: info.shape[1], tokens: info.shape[2], dim: info.shape[3]))
        }
    }

    /// Writes the cache to a new store and counts every byte in its folder, per element.
    func bitsPerElementInStore(_ profile: Profile, options: EncoderOptions) throws -> Double {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let store = try Store.create(at: folder.path + "/store")
        try store.addModel(model)
        let writer = try store.writer(for: .video("v"), model: model.name, profile: profile, options: options)
        let tokens = try TokenSequence(ids: (0..<sample.tokenCount).map { Int32($0) })
        try writer.append(tokens, layers: sample.layers.map { LayerTokens(key: $0.key, value: $0.value) })
        try writer.finish()
        return try store.statistics().bitsPerElement
    }
}
