import ArgumentParser

/// The text of a range: `a..<b`, `a...b`, or `a:b`, which is the first without characters that a shell takes for its own. Either
/// bound may be missing.
private struct RangeText {
    var lower: Substring
    var upper: Substring
    var isClosed: Bool

    init?(_ text: String) {
        for (separator, isClosed) in [("..<", false), ("...", true), (":", false)] {
            // the first place where it stands, for a decimal point is a dot too
            guard let start = text.indices.first(where: { text[$0...].hasPrefix(separator) }) else { continue }
            lower = text[..<start]
            upper = text[start...].dropFirst(separator.count)
            self.isClosed = isClosed
            return
        }
        return nil
    }
}

/// A range of whole numbers from 0 on, each bound of which may be left out.
struct IndexRange: ExpressibleByArgument {
    private let lower: Int?
    /// Past the end.
    private let upper: Int?
    private let text: String

    init?(argument: String) {
        guard let range = RangeText(argument) else { return nil }
        let lower = Int(range.lower)
        let upper = Int(range.upper)
        guard lower != nil || range.lower.isEmpty, upper != nil || range.upper.isEmpty else { return nil }
        if let lower, lower < 0 { return nil }
        if let upper, upper < 0 || upper == .max { return nil }
        self.lower = lower
        self.upper = upper.map { range.isClosed ? $0 + 1 : $0 }
        text = argument
    }

    /// The range within `count` things.
    ///
    /// - Parameter what: what is counted, such as "tokens".
    /// - Throws: `Failure` when it leaves them or is empty.
    func resolved(within count: Int, what: String) throws -> Range<Int> {
        let first = lower ?? 0
        let end = upper ?? count
        guard first <= end else { throw Failure("the \(what) \(text) end before they begin") }
        guard end <= count else {
            throw Failure("there are \(count) \(what), 0..<\(count): \(text) is not within them")
        }
        guard first < end else { throw Failure("the range \(text) holds none of the \(count) \(what)") }
        return first..<end
    }
}

/// A range of seconds, each bound of which may be left out.
struct SecondsRange: ExpressibleByArgument {
    private let lower: Double
    private let upper: Double
    private let isClosed: Bool
    let text: String

    init?(argument: String) {
        guard let range = RangeText(argument) else { return nil }
        let first = range.lower.isEmpty ? 0 : Double(range.lower)
        let end = range.upper.isEmpty ? .infinity : Double(range.upper)
        guard let first, let end, !first.isNaN, !end.isNaN, first <= end else { return nil }
        lower = first
        upper = end
        isClosed = range.isClosed
        text = argument
    }

    func contains(_ seconds: Double) -> Bool { seconds >= lower && (isClosed ? seconds <= upper : seconds < upper) }
}
