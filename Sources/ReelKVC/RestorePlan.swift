import CReelKV
import KVCodec
import ReelKV

/// A restore whose arguments are known to fit: it can only fail for what lies in the store.
struct RestorePlan: @unchecked Sendable {
    let store: Store
    let prefix: StoredPrefix
    /// Indices in the model.
    let layers: Range<Int>
    let tokens: Range<Int>
    /// nil for one per core.
    let threads: Int?
    /// One per layer asked for. The caller leaves their memory alone until the restore ends.
    private let destinations: [LayerDestination]

    /// More threads than this gain nothing, and each has memory of its own.
    private static let threadsMax = 256

    init(
        store: OpaquePointer?, prefix: OpaquePointer?, options: UnsafePointer<reelkv_restore_options>?,
        memory: UnsafePointer<reelkv_layer>?, count: Int
    ) throws {
        self.store = try Handles.object(store, "store")
        self.prefix = try PrefixHandle.prefix(prefix)
        let options = try options.map { try reelkv_restore_options($0, "options") } ?? reelkv_restore_options()
        let geometries = self.prefix.model.layers
        layers = try part(
            first: options.first_layer, count: options.layer_count, of: geometries.count, "layer", "layers of the model")
        tokens = try part(
            first: options.first_token, count: options.token_count, of: self.prefix.tokenCount, "token", "tokens of the prefix")
        threads = options.threads == 0 ? nil : min(Int(options.threads), Self.threadsMax)
        let memory = try elements(memory, count, "layers", atMost: ModelSpec.layersMax)
        guard memory.count == layers.count else {
            throw Failure.invalid("'layers' has \(memory.count) entries for the \(layers.count) layers asked for")
        }
        let (layers, tokens) = (layers, tokens)
        destinations = try memory.enumerated().map { index, memory in
            let destination = try LayerDestination(memory, "layers[\(index)]")
            let layer = layers.lowerBound + index
            try destination.check(layer: layer, geometry: geometries[layer], tokens: tokens.count)
            return destination
        }
    }

    /// Reads the tensors.
    ///
    /// - Parameter onLayer: called as layers are complete, in their order, on any thread, one at a time. An error thrown from it
    ///   ends the restore.
    func run(onLayer: @escaping (RestoredLayer) throws -> Void) throws {
        try store.restore(
            prefix, layers: layers, tokens: tokens, threads: threads, into: { destinations[$0 - layers.lowerBound] },
            onLayer: onLayer)
    }
}

/// What a caller asks for by its first one and how many, 0 for all from there on.
private func part(
    first: some BinaryInteger, count: some BinaryInteger, of total: Int, _ noun: String, _ whole: String
) throws -> Range<Int> {
    guard first <= total, count <= total - Int(first) else {
        throw Failure.invalid(
            "'options' asks for \(count == 0 ? "the rest" : "\(count)") from \(noun) \(first) on, there are \(total) \(whole)")
    }
    return Int(first)..<(count == 0 ? total : Int(first) + Int(count))
}
