/// What a page is of: everything its content depends on. The codec stores it and checks nothing in it.
public struct PageIdentity: Hashable, Sendable {
    /// The model's weights.
    public var modelFingerprint: Digest
    /// Names the page by all tokens up to its end.
    public var chainHash: Digest
    /// The chain hash that the page goes on from.
    public var parentHash: Digest
    /// Index in the sequence of the page's first token.
    public var firstToken: Int
    /// The page's tokens in the engine's canonical form, opaque to the codec.
    public var tokens: [UInt8]

    public init(modelFingerprint: Digest, chainHash: Digest, parentHash: Digest, firstToken: Int, tokens: [UInt8]) {
        self.modelFingerprint = modelFingerprint
        self.chainHash = chainHash
        self.parentHash = parentHash
        self.firstToken = firstToken
        self.tokens = tokens
    }
}

/// One layer's keys and values for a page.
public struct LayerInput: Sendable {
    public var geometry: LayerGeometry
    /// Keys after the rotary embedding, as a model's cache holds them: `[keyValueHeads, tokens, keyDim]`.
    public var key: TensorView
    /// `[keyValueHeads, tokens, valueDim]`.
    public var value: TensorView
    /// First token of the page that the tensors hold; above 0 where a sliding-window layer no longer has the tokens before.
    public var firstToken: Int

    public init(geometry: LayerGeometry, key: TensorView, value: TensorView, firstToken: Int = 0) {
        self.geometry = geometry
        self.key = key
        self.value = value
        self.firstToken = firstToken
    }
}

/// A page to encode.
public struct PageInput: Sendable {
    public var identity: PageIdentity
    /// Tokens of the page, 1...4096.
    public var tokenCount: Int
    /// The model's own element type: what `exact` values are kept in. Every view must have it.
    public var elementType: ElementType
    /// One entry per layer of the model; nil for a layer that the page lacks.
    public var layers: [LayerInput?]
    /// Position ids, one stream or one per M-RoPE section, `tokenCount` each; nil when token `i` is at `identity.firstToken + i`.
    public var positions: [[Int32]]?
    /// Tokens of the page that matter more (VidKV's semantic token protection): more bits under the profiles that have them.
    public var salient: [Int]
    /// Tokens of the page to keep bit for bit.
    public var exact: [Int]
    /// The error that each layer's tensors have already, because they come from a lossy page; it is added to what encoding brings.
    /// Empty when they are what the model computed.
    public var carriedErrors: [LayerError?]

    public init(
        identity: PageIdentity, tokenCount: Int, elementType: ElementType, layers: [LayerInput?], positions: [[Int32]]? = nil,
        salient: [Int] = [], exact: [Int] = [], carriedErrors: [LayerError?] = []
    ) {
        self.identity = identity
        self.tokenCount = tokenCount
        self.elementType = elementType
        self.layers = layers
        self.positions = positions
        self.salient = salient
        self.exact = exact
        self.carriedErrors = carriedErrors
    }

    /// The most tokens that a page may have.
    public static let tokenCountMax = 4096
    /// The most layers that a page may have.
    public static let layersMax = 1024
    /// The most elements that one tensor of a page may have.
    public static let elementsMax = 1 << 28
}

extension PageInput {
    func check() throws(CodecError) {
        guard (1...Self.tokenCountMax).contains(tokenCount) else {
            throw .invalid("a page of \(tokenCount) tokens; a page has 1...\(Self.tokenCountMax)")
        }
        guard (1...Self.layersMax).contains(layers.count) else {
            throw .invalid("a page of \(layers.count) layers; a page has 1...\(Self.layersMax)")
        }
        guard identity.firstToken >= 0, identity.firstToken <= Int.max - tokenCount else {
            throw .invalid("first token \(identity.firstToken) is not an index in a sequence")
        }
        guard identity.tokens.count <= 1 << 24 else {
            throw .invalid("\(identity.tokens.count) bytes of tokens; at most \(1 << 24) fit a page")
        }
        if let positions {
            guard (1...4).contains(positions.count), positions.allSatisfy({ $0.count == tokenCount }) else {
                throw .invalid("positions must be 1 to 4 streams of \(tokenCount) ids each")
            }
        } else if identity.firstToken + tokenCount > Int(Int32.max) {
            throw .invalid("positions beyond \(Int32.max); give explicit position ids")
        }
        guard carriedErrors.isEmpty || carriedErrors.count == layers.count else {
            throw .invalid("\(carriedErrors.count) carried errors for \(layers.count) layers")
        }
        for token in salient + exact where token < 0 || token >= tokenCount {
            throw .invalid("protected token \(token) is not one of the page's \(tokenCount) tokens")
        }
        for (index, layer) in layers.enumerated() {
            guard let layer else { continue }
            try check(layer, index: index)
        }
    }

    private func check(_ layer: LayerInput, index: Int) throws(CodecError) {
        let geometry = layer.geometry
        try geometry.check(index: index)
        guard (0..<tokenCount).contains(layer.firstToken) else {
            throw .invalid("layer \(index) starts at token \(layer.firstToken) of a page of \(tokenCount) tokens")
        }
        let tokens = tokenCount - layer.firstToken
        for (name, view, dim) in [("key", layer.key, geometry.keyDim), ("value", layer.value, geometry.valueDim)] {
            guard view.heads == geometry.keyValueHeads, view.tokens == tokens, view.dim == dim else {
                throw .invalid(
                    "layer \(index) \(name) is [\(view.heads), \(view.tokens), \(view.dim)], expected "
                        + "[\(geometry.keyValueHeads), \(tokens), \(dim)]")
            }
            guard view.elementType == elementType else {
                throw .invalid("layer \(index) \(name) is \(view.elementType.name), the page is \(elementType.name)")
            }
        }
        guard geometry.keyValueHeads * tokens * max(geometry.keyDim, geometry.valueDim) <= Self.elementsMax else {
            throw .invalid("layer \(index) has more than \(Self.elementsMax) elements in one tensor")
        }
        if let streams = geometry.rotary?.positionStreams, let positions, positions.count > 1, positions.count < streams {
            throw .invalid("layer \(index) rotates by \(streams) position streams, the page has \(positions.count)")
        }
    }
}

extension LayerGeometry {
    /// Throws when a size is outside the format's limits or the rotary parameters do not fit the keys.
    public func check(index: Int) throws(CodecError) {
        guard (1...Self.headsMax).contains(keyValueHeads), (1...Self.dimMax).contains(keyDim),
            (1...Self.dimMax).contains(valueDim)
        else {
            throw .invalid(
                "layer \(index) has \(keyValueHeads) heads of \(keyDim) and \(valueDim) channels; each is 1...\(Self.dimMax)")
        }
        guard slidingWindow.map({ $0 > 0 && $0 <= Int(Int32.max) }) ?? true else {
            throw .invalid("layer \(index) has a sliding window of \(slidingWindow ?? 0) tokens")
        }
        guard let rotary else { return }
        let pairs = rotary.inverseFrequencies.count
        guard pairs >= 1, 2 * pairs <= keyDim, rotary.inverseFrequencies.allSatisfy(\.isFinite) else {
            throw .invalid("layer \(index) rotates \(pairs) pairs of channels of \(keyDim), or by angles that are not finite")
        }
        if let sections = rotary.sections {
            guard (1...4).contains(sections.count), sections.allSatisfy({ $0 >= 0 && $0 <= pairs }),
                sections.reduce(0, +) == pairs
            else { throw .invalid("layer \(index): rotary sections \(sections) do not add up to \(pairs) pairs") }
        }
    }
}
