// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import KVCodec
import ReelKV

@c @implementation
public func reelkv_writer_open(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ model: UnsafePointer<CChar>?,
    _ options: UnsafePointer<reelkv_writer_options>?, _ writer: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let place = try output(writer, "writer")
        let store: Store = try Handles.object(store, "store")
        let options = try options.map { try reelkv_writer_options($0, "options") } ?? reelkv_writer_options()
        let name = try sequenceName(sequence, tenant: options.tenant)
        let model = try text(model, "model")
        let profile = try optionalText(options.profile, "options->profile") ?? defaultProfile
        let opened = try store.writer(
            for: name, model: model, profile: try .named(profile), protectedTokens: try protectedTokens(options),
            startingFrom: options.start == nil ? nil : try PrefixHandle.prefix(options.start, "options->start"),
            continuingAfter: options.checks_token_count == 0 ? nil : try number(options.token_count, "options->token_count"),
            replacing: options.replaces != 0)
        place.pointee = Handles.make(WriterHandle(opened))
    }
}

private let defaultProfile = "vidkv-1.5-1.58"

private func protectedTokens(_ options: reelkv_writer_options) throws -> Set<Int> {
    let indices = try elements(
        options.protected_tokens, options.protected_count, "options->protected_tokens", atMost: TokenSequence.countMax)
    return Set(try indices.map { try number($0, "options->protected_tokens") })
}

@c @implementation
public func reelkv_writer_append(
    _ writer: OpaquePointer?, _ tokens: UnsafePointer<reelkv_tokens>?, _ layers: UnsafePointer<reelkv_layer>?,
    _ layer_count: Int
) -> reelkv_status {
    attempt {
        let writer: WriterHandle = try Handles.object(writer, "writer")
        let tokens = try TokenSequence(tokens, "tokens")
        let layers = try elements(layers, layer_count, "layers", atMost: ModelSpec.layersMax).enumerated().map {
            try LayerTokens($1, "layers[\($0)]")
        }
        try writer.use { try $0.append(tokens, layers: layers) }
    }
}

@c @implementation
public func reelkv_writer_flush(_ writer: OpaquePointer?) -> reelkv_status {
    attempt {
        let writer: WriterHandle = try Handles.object(writer, "writer")
        try writer.use { try $0.flush() }
    }
}

@c @implementation
public func reelkv_writer_describe(_ writer: OpaquePointer?, _ info: UnsafeMutablePointer<reelkv_writer_info>?) -> reelkv_status {
    attempt {
        let writer: WriterHandle = try Handles.object(writer, "writer")
        let found = writer.use { writer in
            reelkv_writer_info(
                struct_size: 0, token_count: UInt64(writer.tokenCount), reused_token_count: UInt64(writer.reusedTokenCount),
                stored_bytes: UInt64(writer.storedBytes))
        }
        try found.fill(info, "info")
    }
}

@c @implementation
public func reelkv_writer_finish(_ writer: OpaquePointer?, _ options: UnsafePointer<reelkv_finish_options>?) -> reelkv_status {
    attempt {
        let writer: WriterHandle = try Handles.object(writer, "writer")
        let options = try options.map { try reelkv_finish_options($0, "options") } ?? reelkv_finish_options()
        let state = try engineState(options)
        let frames = try frames(options)
        let provenance = try provenance(options)
        let isPinned = try pin(options.pin)
        try writer.use {
            try $0.finish(engineState: state, frames: frames, provenance: provenance, isPinned: isPinned)
        }
    }
}

private func engineState(_ options: reelkv_finish_options) throws -> [UInt8]? {
    let name = "options->engine_state"
    guard options.engine_state != nil || options.engine_state_bytes != 0 else { return nil }
    let bytes = try elements(
        try required(options.engine_state, name).assumingMemoryBound(to: UInt8.self), options.engine_state_bytes, name,
        atMost: Int(Int32.max))
    return Array(bytes)
}

private func frames(_ options: reelkv_finish_options) throws -> [VideoFrame] {
    try elements(options.frames, options.frame_count, "options->frames", atMost: TokenSequence.countMax).enumerated().map {
        VideoFrame(
            firstToken: try number($1.first_token, "options->frames[\($0)].first_token"),
            tokenCount: try number($1.token_count, "options->frames[\($0)].token_count"), seconds: $1.seconds)
    }
}

private func provenance(_ options: reelkv_finish_options) throws -> Provenance {
    let pairs = options.provenance_count
    guard pairs >= 0, pairs <= Int(Int32.max) else {
        throw Failure.invalid("'options->provenance_count' is too large")
    }
    let texts = try elements(options.provenance, 2 * pairs, "options->provenance", atMost: .max).enumerated().map {
        try text($1, "options->provenance[\($0)]")
    }
    return Provenance(Dictionary((0..<pairs).map { (texts[2 * $0], texts[2 * $0 + 1]) }) { _, last in last })
}

private func pin(_ pin: UInt32) throws -> Bool? {
    switch Int(pin) {
    case REELKV_PIN_DEFAULT: nil
    case REELKV_PIN_YES: true
    case REELKV_PIN_NO: false
    default: throw Failure.invalid("'options->pin' must be one of REELKV_PIN_..., it is \(pin)")
    }
}

@c @implementation
public func reelkv_writer_close(_ writer: OpaquePointer?) {
    Handles.release(writer, as: WriterHandle.self)
}

@c @implementation
public func reelkv_writer_cancel(_ writer: OpaquePointer?) {
    Handles.release(writer, as: WriterHandle.self)?.use { $0.cancel() }
}
