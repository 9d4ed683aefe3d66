/// The class of every token of a page.
struct TokenClasses: Hashable {
    /// One byte per token, a `TokenClass` each.
    let bytes: [UInt8]

    init(repeating tokenClass: TokenClass, count: Int) {
        bytes = Array(repeating: tokenClass.rawValue, count: count)
    }

    /// Takes bytes that are classes.
    init(known bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Throws when a byte is no class.
    init(bytes: [UInt8]) throws(CodecError) {
        guard bytes.allSatisfy({ TokenClass(rawValue: $0) != nil }) else { throw .damaged("a token has an unknown class") }
        self.bytes = bytes
    }

    /// The classes when those tokens have another for which `isMarked` holds.
    func marking(_ isMarked: [Bool], as tokenClass: TokenClass) -> TokenClasses {
        TokenClasses(known: zip(bytes, isMarked).map { $1 ? tokenClass.rawValue : $0 })
    }

    /// The tokens of `range` whose class is in `classes`, ascending.
    func tokens(of classes: UInt8, in range: Range<Int>) -> [UInt32] {
        range.compactMap { classes >> bytes[$0] & 1 == 1 ? UInt32($0) : nil }
    }

    /// The classes that occur in `range`, as bits.
    func present(in range: Range<Int>) -> UInt8 {
        bytes[range].reduce(0) { $0 | 1 << $1 }
    }

    func count(of tokenClass: TokenClass) -> Int {
        bytes.reduce(0) { $0 + ($1 == tokenClass.rawValue ? 1 : 0) }
    }
}

extension UInt8 {
    static let lossyClasses = TokenClass.base.bit | TokenClass.salient.bit
}
