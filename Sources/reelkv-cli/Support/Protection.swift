import FoundationEssentials
import KVCodec

/// Which tokens get more bits: by a rule, or one by one.
enum Protection {
    case rule(EncoderOptions.Protection)
    case tokens(Set<Int>)

    /// The seed of `random`: the same tokens each time, so that the same import stores the same bytes.
    private static let seed: UInt64 = 0x5EED

    init(_ text: String) throws {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        switch parts.first {
        case "none":
            self = .rule(.listed)
        case "value-norm":
            self = .rule(.valueNorm(fraction: try Self.fraction(parts)))
        case "random":
            self = .rule(.random(fraction: try Self.fraction(parts), seed: Self.seed))
        default:
            self = .tokens(try Self.list(text))
        }
    }

    private static func fraction(_ parts: [Substring]) throws -> Double {
        guard parts.count == 2 else { return 0.2 }
        guard let fraction = Double(parts[1]), (0...1).contains(fraction) else {
            throw Failure(
                "'\(parts[1])' is no fraction of the tokens to protect: give a number from 0 to 1, such as \(parts[0]):0.2")
        }
        return fraction
    }

    /// `5,80..<90` or the same in a file, apart by commas, spaces or lines.
    private static func list(_ text: String) throws -> Set<Int> {
        if let tokens = tokens(text) { return tokens }
        guard let data = try? Data(contentsOf: URL(filePath: text)) else {
            throw Failure(
                "'\(text)' names no tokens to protect: give value-norm, random, none, a list such as 5,80..<90, or a file "
                    + "that holds one"
            )
        }
        guard let tokens = tokens(String(decoding: data, as: UTF8.self)) else {
            throw Failure("\(text) holds no list of tokens, such as 5,80..<90")
        }
        return tokens
    }

    private static func tokens(_ text: String) -> Set<Int>? {
        var tokens: Set<Int> = []
        for item in text.split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
            if let token = Int(item), token >= 0 {
                tokens.insert(token)
            } else if let range = IndexRange(argument: String(item)),
                let known = try? range.resolved(within: tokensMax, what: "tokens"),
                known.count < tokensMax
            {
                tokens.formUnion(known)
            } else {
                return nil
            }
        }
        return tokens
    }

    /// A list longer than this is no list of single tokens.
    private static let tokensMax = 1 << 24
}
