// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import KVCodec
import ReelKV

/// A stored prefix that a caller holds.
final class PrefixHandle: HandleObject {
    static let noun = "a prefix"
    let prefix: StoredPrefix

    init(_ prefix: StoredPrefix) { self.prefix = prefix }

    static func prefix(_ handle: OpaquePointer?, _ name: String = "prefix") throws -> StoredPrefix {
        let handle: PrefixHandle = try Handles.object(handle, name)
        return handle.prefix
    }
}

extension Lease: HandleObject {
    static var noun: String { "a lease" }
}

@c @implementation
public func reelkv_longest_prefix(
    _ store: OpaquePointer?, _ model: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?,
    _ tokens: UnsafePointer<reelkv_tokens>?, _ accepting: UnsafePointer<reelkv_acceptance>?, _ flags: UInt32,
    _ prefix: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let place = try output(prefix, "prefix")
        let store: Store = try Handles.object(store, "store")
        let model = try text(model, "model")
        try check(flags: flags, known: REELKV_MATCH_UNCOUNTED)
        let found = try store.longestPrefix(
            of: try TokenSequence(tokens, "tokens"), model: model, tenant: try ReelKVC.tenant(tenant),
            accepting: try Acceptance(accepting), isCounted: flags & REELKV_MATCH_UNCOUNTED == 0)
        place.pointee = Handles.make(PrefixHandle(found))
    }
}

@c @implementation
public func reelkv_sequence_prefix(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?, _ flags: UInt32,
    _ prefix: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let place = try output(prefix, "prefix")
        let store: Store = try Handles.object(store, "store")
        let name = try sequenceName(sequence, tenant: tenant)
        try check(flags: flags, known: REELKV_MATCH_UNCOUNTED)
        let found = try store.prefix(of: name, isCounted: flags & REELKV_MATCH_UNCOUNTED == 0)
        place.pointee = Handles.make(PrefixHandle(found))
    }
}

@c @implementation
public func reelkv_prefix_describe(_ prefix: OpaquePointer?, _ info: UnsafeMutablePointer<reelkv_prefix_info>?) -> reelkv_status {
    attempt { try reelkv_prefix_info(try PrefixHandle.prefix(prefix)).fill(info, "info") }
}

@c @implementation
public func reelkv_prefix_layer(
    _ prefix: OpaquePointer?, _ layer: UInt32, _ geometry: UnsafeMutablePointer<reelkv_layer_geometry>?
) -> reelkv_status {
    attempt {
        let layers = try PrefixHandle.prefix(prefix).model.layers
        guard layers.indices.contains(Int(layer)) else {
            throw Failure.invalid("'layer' is \(layer), the model has \(layers.count) layers")
        }
        let found = layers[Int(layer)]
        var shape = reelkv_layer_geometry()
        shape.kv_heads = UInt32(found.keyValueHeads)
        shape.key_dim = UInt32(found.keyDim)
        shape.value_dim = UInt32(found.valueDim)
        shape.sliding_window = UInt64(found.slidingWindow ?? 0)
        try shape.fill(geometry, "geometry")
    }
}

@c @implementation
public func reelkv_prefix_engine_state(
    _ prefix: OpaquePointer?, _ buffer: UnsafeMutableRawPointer?, _ capacity: Int
) -> reelkv_status {
    attempt {
        guard let state = try PrefixHandle.prefix(prefix).engineState else {
            throw Failure(REELKV_NOT_FOUND, "no engine state is kept after the last token of this prefix")
        }
        guard UInt(bitPattern: capacity) >= UInt(state.count) else {
            throw Failure.invalid("'buffer' has \(capacity) bytes, the engine state needs \(state.count)")
        }
        if !state.isEmpty { try required(buffer, "buffer").copyMemory(from: state, byteCount: state.count) }
    }
}

@c @implementation
public func reelkv_prefix_tokens(
    _ store: OpaquePointer?, _ prefix: OpaquePointer?,
    _ tokens: UnsafeMutablePointer<UnsafeMutablePointer<reelkv_tokens>?>?
) -> reelkv_status {
    attempt {
        let place = try output(tokens, "tokens")
        let store: Store = try Handles.object(store, "store")
        place.pointee = try store.tokens(of: try PrefixHandle.prefix(prefix)).copyForCaller()
    }
}

@c @implementation
public func reelkv_prefix_free(_ prefix: OpaquePointer?) {
    Handles.release(prefix, as: PrefixHandle.self)
}

@c @implementation
public func reelkv_lease_take(
    _ store: OpaquePointer?, _ prefix: OpaquePointer?, _ lease: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let place = try output(lease, "lease")
        let store: Store = try Handles.object(store, "store")
        place.pointee = Handles.make(try store.lease(try PrefixHandle.prefix(prefix)))
    }
}

@c @implementation
public func reelkv_lease_release(_ lease: OpaquePointer?) {
    Handles.release(lease, as: Lease.self)?.release()
}

extension Acceptance {
    fileprivate init(_ pointer: UnsafePointer<reelkv_acceptance>?) throws {
        guard let pointer else {
            self = .any
            return
        }
        let bounds = try reelkv_acceptance(pointer, "accepting")
        guard bounds.key_error_max >= 0, bounds.value_error_max >= 0 else {
            throw Failure.invalid(
                "'accepting' has errors of \(bounds.key_error_max) and \(bounds.value_error_max): they must be 0 or more")
        }
        self.init(keyErrorMax: bounds.key_error_max, valueErrorMax: bounds.value_error_max)
    }
}

extension reelkv_prefix_info {
    fileprivate init(_ prefix: StoredPrefix) {
        self.init()
        token_count = UInt64(prefix.tokenCount)
        stored_bytes = UInt64(prefix.storedBytes)
        engine_state_bytes = UInt64(prefix.engineState?.count ?? 0)
        key_error = prefix.keyError
        value_error = prefix.valueError
        is_exact = prefix.isExact ? 1 : 0
        has_engine_state = prefix.engineState == nil ? 0 : 1
        dtype = UInt32(prefix.model.elementType.rawValue)
        layer_count = UInt32(prefix.model.layers.count)
        switch prefix.stop {
        case .complete: stop = UInt32(REELKV_STOP_COMPLETE)
        case .notStored: stop = UInt32(REELKV_STOP_NOT_STORED)
        case .tooLossy(let keyError, let valueError):
            stop = UInt32(REELKV_STOP_TOO_LOSSY)
            refused_key_error = keyError
            refused_value_error = valueError
        case .quarantined: stop = UInt32(REELKV_STOP_QUARANTINED)
        case .slidingWindowIncomplete: stop = UInt32(REELKV_STOP_SLIDING_WINDOW)
        }
    }
}
