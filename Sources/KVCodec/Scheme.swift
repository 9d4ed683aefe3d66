// The numbers that a page image uses for its choices; schema/records.json says the same.

/// How a part's values are stored.
public enum Scheme: UInt8, Hashable, Sendable {
    /// The bytes of the values themselves.
    case exact = 0
    /// `minimum + code * scale`.
    case uniform = 1
    /// `mean + (2 * code - 1) * scale`.
    case sign = 2
    /// `mean + (code - 1) * scale`.
    case ternary = 3
}

/// How much a token matters. Tokens of one class are gathered and quantized together, apart from the others.
public enum TokenClass: UInt8, CaseIterable, Hashable, Sendable {
    case base = 0
    case salient = 1
    case exact = 2

    /// The class's bit in a set of classes.
    var bit: UInt8 { 1 << rawValue }
}

/// Keys or values.
public enum TensorKind: UInt8, CaseIterable, Hashable, Sendable {
    case key = 0
    case value = 1
}

/// What a stream of a part holds.
public enum StreamKind: UInt8, Hashable, Sendable {
    case codes = 1
    case scales = 2
    case anchors = 3
    case means = 4
    case mask = 5
    case exactPlane = 6
    case exponentMaxima = 7
}

/// How a stream is stored.
public enum StreamEncoding: UInt8, Hashable, Sendable {
    case raw = 1
    case zstd = 2
    /// In the section's shared frame.
    case shared = 3
}

/// Which channels of a head a part holds.
public enum ChannelSet: UInt8, Hashable, Sendable {
    case all = 0
    /// The anomalous channels, whose mask is among the part's streams.
    case masked = 1
    /// All but those of the masked part right before it.
    case unmasked = 2
}

/// What else was done to a part's values.
public struct PartFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The rotary embedding was undone.
    public static let unrotated = PartFlags(rawValue: 1)
    /// The channels were Fourier transformed.
    public static let fourier = PartFlags(rawValue: 2)
    /// Groups run along channels, each for one token.
    public static let alongChannels = PartFlags(rawValue: 4)

    static let known: PartFlags = [.unrotated, .fourier, .alongChannels]
}

enum PageFormat {
    /// 89 52 4B 56 50 0D 0A 1A: bytes that text tools and line-ending conversion damage visibly.
    static let magic: UInt64 = 0x1A0A_0D50_564B_5289
    static let version: UInt16 = 1
    static let codecID: UInt16 = 1
    /// 2 brought shared frames.
    static let codecVersion: UInt16 = 2
    static let sectionAlignment = 64
    static let noRotary = UInt16.max
    static let partsMax = 32
    static let streamsMax = 512
    static let meanPlanesMax = 4
    /// Raw bytes of a section's shared frame.
    static let sharedBytesMax = 1 << 20
}
