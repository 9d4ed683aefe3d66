/// Nodes that come back alike: those used as often, whose last two uses lay as far apart, or which came in with as many others.
///
/// What is known of when a node will be used again is known of its class only.
package enum ReturnClass {
    /// Times used: 1...5, 6 and more.
    static let usesMax = 6
    /// Levels of the second feature.
    static let levels = 4
    /// Tail pieces, whatever their use: a conversation that goes on replaces them.
    package static let tail: UInt8 = UInt8(usesMax * levels)
    package static let count = Int(tail) + 1

    /// - Parameters:
    ///   - uses: at least 1.
    ///   - gap: accesses of the store between the last two uses; 0 when there was one.
    ///   - together: nodes that were stored in one go with this one.
    package static func of(isTail: Bool, uses: Int, gap: UInt64, together: Int) -> UInt8 {
        if isTail { return tail }
        let uses = min(max(uses, 1), usesMax)
        let level: Int
        if uses == 1 || gap == 0 {
            // under 8 nodes, 24, 56 nodes, and more
            level = together < 8 ? 0 : together < 24 ? 1 : together < 56 ? 2 : 3
        } else {
            // two and a half octaves each: gaps under 6 accesses, 32, 182, and more
            level = gap < 6 ? 0 : gap < 32 ? 1 : gap < 182 ? 2 : 3
        }
        return UInt8((uses - 1) * levels + level)
    }
}

/// Ages, in accesses of the store, on a scale of two bins an octave.
package enum AgeBin {
    package static let count = 64
    static let perOctave = 2

    /// Where bins start, and where the last one ends.
    static let starts: [Double] = (0...count).map { bin in
        let octave = Double(UInt64(1) << UInt64(bin / perOctave))
        return bin % perOctave == 0 ? octave : octave * 2.0.squareRoot()
    }

    package static func of(_ age: UInt64) -> Int {
        guard age > 1 else { return 0 }
        let octave = UInt64.bitWidth - 1 - age.leadingZeroBitCount
        guard octave < count / perOctave else { return count - 1 }
        return 2 * octave + (Double(age) >= starts[2 * octave + 1] ? 1 : 0)
    }

    /// The lowest age of a bin.
    package static func youngest(of bin: Int) -> UInt64 { bin == 0 ? 0 : UInt64(starts[bin].rounded(.up)) }
}
