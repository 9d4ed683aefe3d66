import KVCodec
import ReelKV
import Rendering

/// A model as listings show it.
struct ModelReport: Encodable {
    struct Layer: Encodable, Equatable {
        var kvHeads: Int
        var keyDim: Int
        var valueDim: Int
        var slidingWindow: Int?
        var rotary: String

        enum CodingKeys: String, CodingKey {
            case kvHeads = "kv_heads"
            case keyDim = "key_dim"
            case valueDim = "value_dim"
            case slidingWindow = "sliding_window"
            case rotary
        }

        init(_ geometry: LayerGeometry) {
            kvHeads = geometry.keyValueHeads
            keyDim = geometry.keyDim
            valueDim = geometry.valueDim
            slidingWindow = geometry.slidingWindow
            guard let rotation = geometry.rotary else {
                rotary = "unknown"
                return
            }
            let sections = rotation.sections.map { ", M-RoPE \($0)" } ?? ""
            rotary = "\(rotation.inverseFrequencies.count) pairs, \(rotation.pairing)\(sections)"
        }
    }

    var name: String
    var fingerprint: String
    var dtype: String
    var layers: [Layer]
    var bytesPerToken: Int

    enum CodingKeys: String, CodingKey {
        case name, fingerprint, dtype, layers
        case bytesPerToken = "bytes_per_token"
    }

    init(_ model: ModelSpec) {
        name = model.name
        fingerprint = model.fingerprint.hex
        dtype = model.elementType.name
        layers = model.layers.map(Layer.init)
        bytesPerToken = model.exactBytesPerToken
    }

    /// One line without the name.
    var summary: String {
        "\(counted(layers.count, "layer")), KV heads \(heads), dimension \(dims), \(dtype), \(Format.bytes(bytesPerToken)) a "
            + "token"
    }

    private var heads: String { Self.span(layers.map(\.kvHeads)) }
    private var dims: String {
        let (keys, values) = (Self.span(layers.map(\.keyDim)), Self.span(layers.map(\.valueDim)))
        return keys == values ? keys : "\(keys) and \(values)"
    }

    private static func span(_ values: [Int]) -> String {
        let (low, high) = (values.min() ?? 0, values.max() ?? 0)
        return low == high ? "\(low)" : "\(low)-\(high)"
    }

    static func table(_ models: [ModelReport]) -> String {
        var table = TextTable(
            .left("NAME"), .right("LAYERS"), .right("KV HEADS"), .right("DIM"), .left("DTYPE"), .right("BYTES/TOKEN"),
            .left("FINGERPRINT"))
        for model in models {
            table.append(
                model.name, "\(model.layers.count)", model.heads, model.dims, model.dtype, Format.count(model.bytesPerToken),
                String(model.fingerprint.prefix(16)))
        }
        return table.text()
    }
}
