/// The shape of one attention layer's cache: keys `[keyValueHeads, tokens, keyDim]`, values `[keyValueHeads, tokens, valueDim]`.
public struct LayerGeometry: Hashable, Sendable {
    /// Key/value heads (not query heads).
    public var keyValueHeads: Int
    /// Channels of a key.
    public var keyDim: Int
    /// Channels of a value.
    public var valueDim: Int
    /// Tokens a sliding-window layer attends to; nil where the layer attends to all.
    public var slidingWindow: Int?
    /// How the model rotates this layer's keys; nil when it does not, or in a way not known, so that keys are quantized as
    /// they are.
    public var rotary: RotaryParameters?

    public init(
        keyValueHeads: Int, keyDim: Int, valueDim: Int, slidingWindow: Int? = nil, rotary: RotaryParameters? = nil
    ) {
        self.keyValueHeads = keyValueHeads
        self.keyDim = keyDim
        self.valueDim = valueDim
        self.slidingWindow = slidingWindow
        self.rotary = rotary
    }

    /// Elements that one token takes in this layer, keys and values together.
    public var elementsPerToken: Int { keyValueHeads * (keyDim + valueDim) }

    /// The largest heads and dims a page may have: a limit on everything, far above any model in use.
    public static let headsMax = 1024
    public static let dimMax = 1024
}
