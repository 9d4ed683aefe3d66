// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import KVCodec
import ModelSpecFiles
import ReelKV

@c @implementation
public func reelkv_model_add(_ store: OpaquePointer?, _ model: UnsafePointer<reelkv_model>?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.addModel(try ModelSpec(reelkv_model(model, "model")))
    }
}

@c @implementation
public func reelkv_model_add_json(
    _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ json: UnsafePointer<CChar>?, _ json_bytes: Int,
    _ fingerprint: UnsafePointer<CChar>?, _ warnings: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        warnings?.pointee = nil
        let store: Store = try Handles.object(store, "store")
        let name = try text(name, "name")
        let bytes = UnsafeRawBufferPointer(try elements(try required(json, "json"), json_bytes, "json", atMost: jsonBytesMax))
        let file = try ModelSpecFile(
            json: bytes, file: "json", name: name, fingerprint: try optionalText(fingerprint, "fingerprint"))
        let sentences = try warnings.map { _ in try copy(file.warnings.joined(separator: "\n")) }
        do {
            try store.addModel(file.spec)
        } catch {
            reelkv_free(sentences)
            throw error
        }
        warnings?.pointee = sentences
    }
}

private let jsonBytesMax = 16 << 20

@c @implementation
public func reelkv_models_json(
    _ store: OpaquePointer?, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        place.pointee = try ReelKVC.json(try store.models().map(ModelDescription.init))
    }
}

@c @implementation
public func reelkv_model_remove(
    _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ deleting_sequences: Int32
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.removeModel(named: try text(name, "name"), deletingSequences: deleting_sequences != 0)
    }
}

extension ModelSpec {
    fileprivate init(_ model: reelkv_model) throws {
        let name = try text(model.name, "model->name")
        let fingerprint = Digest(model.fingerprint)
        guard fingerprint != .zero else {
            throw Failure.invalid("'model->fingerprint' is all zero: it must identify the weights, such as by their SHA-256")
        }
        let type = try ReelKVC.elementType(model.dtype, "model->dtype")
        let layers = try reelkv_layer_geometry.array(
            model.layers, model.layer_count, "model->layers", atMost: ModelSpec.layersMax)
        self.init(
            name: name, fingerprint: fingerprint, elementType: type,
            layers: try layers.enumerated().map { try LayerGeometry($1, "model->layers[\($0)]") })
    }
}

extension LayerGeometry {
    fileprivate init(_ layer: reelkv_layer_geometry, _ name: String) throws {
        let window = try number(layer.sliding_window, "\(name).sliding_window")
        self.init(
            keyValueHeads: Int(layer.kv_heads), keyDim: Int(layer.key_dim), valueDim: Int(layer.value_dim),
            slidingWindow: window == 0 ? nil : window, rotary: try RotaryParameters(layer, name))
    }
}

extension RotaryParameters {
    /// nil where no frequencies are given.
    fileprivate init?(_ layer: reelkv_layer_geometry, _ name: String) throws {
        guard layer.rotary_inverse_frequencies != nil else { return nil }
        let frequencies = try elements(
            layer.rotary_inverse_frequencies, layer.rotary_pair_count, "\(name).rotary_inverse_frequencies",
            atMost: LayerGeometry.dimMax)
        guard let pairing = UInt8(exactly: layer.rotary_pairing).flatMap(Pairing.init(rawValue:)) else {
            throw Failure.invalid("'\(name).rotary_pairing' must be one of REELKV_ROTARY_..., it is \(layer.rotary_pairing)")
        }
        let (time, height, width) = layer.rotary_sections
        let sections = [Int(time), Int(height), Int(width)]
        self.init(
            inverseFrequencies: Array(frequencies), pairing: pairing, sections: sections == [0, 0, 0] ? nil : sections)
    }
}
