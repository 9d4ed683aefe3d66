public import KVCodec

/// What a model's cache looks like, and which weights made it. Nothing is ever matched across two fingerprints.
public struct ModelSpec: Hashable, Sendable {
    /// The name the store knows the model by.
    public var name: String
    /// Identifies the weights, and whatever else changes the cache (adapters, quantization): a digest of the weight files.
    public var fingerprint: Digest
    /// The type of the cache's elements.
    public var elementType: ElementType
    /// One entry per layer, in the model's order.
    public var layers: [LayerGeometry]

    public init(name: String, fingerprint: Digest, elementType: ElementType, layers: [LayerGeometry]) {
        self.name = name
        self.fingerprint = fingerprint
        self.elementType = elementType
        self.layers = layers
    }

    /// Elements that one token takes over all layers, keys and values together.
    public var elementsPerToken: Int { layers.reduce(0) { $0 + $1.elementsPerToken } }

    /// Bytes that one token takes uncompressed.
    public var exactBytesPerToken: Int { elementsPerToken * elementType.byteCount }

    /// The largest number of layers a model may have.
    public static let layersMax = 1024
}
