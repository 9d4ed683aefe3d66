import KVCodec
import ReelKV

extension TokenSequence {
    /// The first token in which this sequence and `other` differ, up to the end of the shorter one; nil when there is none.
    /// Placeholders differ by what they stand for, not by their ids.
    func firstDifference(from other: TokenSequence) -> Int? {
        var left = MediaCursor(media)
        var right = MediaCursor(other.media)
        for index in 0..<min(count, other.count) {
            let mine = left.element(at: index)
            let its = right.element(at: index)
            if mine?.digest != its?.digest || mine?.offset != its?.offset { return index }
            if mine == nil, ids[index] != other.ids[index] { return index }
            if hasOtherPosition(at: index, than: other) { return index }
        }
        return nil
    }

    private func hasOtherPosition(at index: Int, than other: TokenSequence) -> Bool {
        guard positions != nil || other.positions != nil else { return false }
        let streams = max(positions?.count ?? 1, other.positions?.count ?? 1)
        return (0..<streams).contains { position(at: index, stream: $0) != other.position(at: index, stream: $0) }
    }

    /// A token without an explicit position is at its index; one stream stands for all.
    private func position(at index: Int, stream: Int) -> Int32 {
        guard let positions else { return Int32(truncatingIfNeeded: index) }
        return positions[min(stream, positions.count - 1)][index]
    }
}

/// Walks media spans along with the tokens.
private struct MediaCursor {
    private let spans: [MediaSpan]
    private var next = 0

    init(_ spans: [MediaSpan]) { self.spans = spans }

    /// What token `index` stands for; nil for text. Indices must not fall.
    mutating func element(at index: Int) -> (digest: Digest, offset: Int)? {
        while next < spans.count, spans[next].range.upperBound <= index { next += 1 }
        guard next < spans.count, spans[next].firstToken <= index else { return nil }
        return (spans[next].digest, spans[next].mediaOffset + index - spans[next].firstToken)
    }
}
