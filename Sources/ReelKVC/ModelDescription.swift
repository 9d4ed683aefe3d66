import KVCodec
import ReelKV

/// A model as `reelkv_models_json` tells of it.
struct ModelDescription: Encodable {
    struct Layer: Encodable {
        var geometry: LayerGeometry

        enum CodingKeys: String, CodingKey {
            case rotated
            case kvHeads = "kv_heads"
            case keyDim = "key_dim"
            case valueDim = "value_dim"
            case slidingWindow = "sliding_window"
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(geometry.keyValueHeads, forKey: .kvHeads)
            try container.encode(geometry.keyDim, forKey: .keyDim)
            try container.encode(geometry.valueDim, forKey: .valueDim)
            try container.encode(geometry.slidingWindow, forKey: .slidingWindow)
            try container.encode(geometry.rotary != nil, forKey: .rotated)
        }
    }

    var name: String
    var fingerprint: String
    var dtype: String
    var layers: [Layer]

    init(_ model: ModelSpec) {
        name = model.name
        fingerprint = model.fingerprint.hex
        dtype =
            switch model.elementType {
            case .float16: "float16"
            case .bfloat16: "bfloat16"
            case .float32: "float32"
            }
        layers = model.layers.map(Layer.init)
    }
}
