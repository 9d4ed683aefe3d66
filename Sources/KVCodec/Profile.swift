/// How the codes of a group relate to its values.
package enum Quantizer: Hashable, Sendable {
    /// 2^bits evenly spaced levels from the group's minimum.
    case uniform(bits: Int)
    /// The group's mean plus or minus its mean deviation: 1 bit.
    case sign
    /// Minus a centroid, zero, plus a centroid: 1.58 bits.
    case ternary

    var codeBits: Int {
        switch self {
        case .uniform(let bits): bits <= 2 ? bits : bits <= 4 ? 4 : 8
        case .sign: 1
        case .ternary: 2
        }
    }

    var scheme: Scheme {
        switch self {
        case .uniform: .uniform
        case .sign: .sign
        case .ternary: .ternary
        }
    }
}

/// How a profile encodes the keys or the values of a layer.
package struct TensorPlan: Hashable, Sendable {
    var quantizer: Quantizer
    /// Keys of mixed precision: the fraction of channels with the largest range that keep 2 bits. The others are Fourier
    /// transformed.
    var anomalousFraction: Double?
    /// Groups run along the channels of a token (KIVI's values) instead of along the tokens of a channel.
    var alongChannels = false
    /// Un-rotate keys first where the rotary parameters are known.
    var unrotates = true
    /// Search for a scale and minimum that clip the group's extremes, instead of taking its range.
    var clips = true
}

/// A named quantization setting for the pages of a sequence.
///
/// `vidkv-K-V` are the settings of VidKV (arXiv 2503.16257): K bits for keys, V bits for values, the bits of the codes alone.
/// `kivi-2` is KIVI (arXiv 2402.02750) at 2 bits. Every profile but `exact` keeps the first tokens of a sequence exact
/// (`EncoderOptions.exactPrefix`).
public struct Profile: Hashable, Sendable {
    /// The name by which people and files know the profile.
    public let name: String
    /// The number that page images and the index know it by; never used again for another profile.
    public let id: UInt16
    /// Bits of a key's code as named, without scales; nil for `exact`.
    public let keyBits: Double?
    /// Bits of a value's code as named, without scales; nil for `exact`.
    public let valueBits: Double?

    package let key: TensorPlan?
    package let value: TensorPlan?
    package let salientValue: TensorPlan?

    /// Whether every value comes back bit for bit.
    public var isExact: Bool { key == nil }

    /// Whether the profile gives salient tokens (`PageInput.salient`) more bits.
    public var protectsSalientTokens: Bool { salientValue != nil }
}

extension Profile {
    /// Bit-identical, about two thirds of the size.
    public static let exact = Profile(
        name: "exact", id: 1, keyBits: nil, valueBits: nil, key: nil, value: nil, salientValue: nil)

    /// Every profile, most bits first within a family.
    public static let all: [Profile] = [
        exact,
        plain("int8", id: 2, bits: 8),
        plain("int4", id: 3, bits: 4),
        kivi2,
        vidkv("vidkv-2-2", id: 16, key: 2, value: 2),
        vidkv("vidkv-1.5-2", id: 17, key: 1.5, value: 2),
        vidkv("vidkv-1.25-2", id: 18, key: 1.25, value: 2),
        vidkv("vidkv-2-1.58", id: 19, key: 2, value: 1.58),
        vidkv("vidkv-1.75-1.66", id: 20, key: 1.75, value: 1.66),
        vidkv("vidkv-1.5-1.66", id: 21, key: 1.5, value: 1.66),
        vidkv("vidkv-1.5-1.58", id: 22, key: 1.5, value: 1.58),
        vidkv("vidkv-1.25-1.58", id: 23, key: 1.25, value: 1.58),
        vidkv("vidkv-1-1", id: 24, key: 1, value: 1),
    ]

    /// The profile of a name.
    /// - Throws: `CodecError.Code.unknownProfile`, with a message that lists the names.
    public static func named(_ name: some StringProtocol) throws(CodecError) -> Profile {
        let wanted = String(name)
        guard let profile = all.first(where: { $0.name == wanted }) else {
            let names = all.map(\.name).joined(separator: ", ")
            throw CodecError(.unknownProfile, "no profile is named \"\(wanted)\"; the profiles are \(names)")
        }
        return profile
    }

    /// The profile of a number; nil when this version knows none.
    public static func numbered(_ id: UInt16) -> Profile? { all.first { $0.id == id } }

    private static func plain(_ name: String, id: UInt16, bits: Int) -> Profile {
        let plan = TensorPlan(quantizer: .uniform(bits: bits))
        return Profile(
            name: name, id: id, keyBits: Double(bits), valueBits: Double(bits), key: plan, value: plan, salientValue: nil)
    }

    private static let kivi2 = Profile(
        name: "kivi-2", id: 4, keyBits: 2, valueBits: 2,
        key: TensorPlan(quantizer: .uniform(bits: 2), unrotates: false, clips: false),
        value: TensorPlan(quantizer: .uniform(bits: 2), alongChannels: true, clips: false), salientValue: nil)

    private static func vidkv(_ name: String, id: UInt16, key: Double, value: Double) -> Profile {
        let mixed = TensorPlan(quantizer: .sign, anomalousFraction: key - 1)
        let twoBits = TensorPlan(quantizer: .uniform(bits: 2))
        let valuePlan = value == 2 ? twoBits : TensorPlan(quantizer: value == 1 ? .sign : .ternary)
        return Profile(
            name: name, id: id, keyBits: key, valueBits: value, key: key == 2 ? twoBits : mixed, value: valuePlan,
            salientValue: value == 1.66 ? twoBits : nil)
    }
}

extension Profile: CustomStringConvertible {
    public var description: String { name }
}
