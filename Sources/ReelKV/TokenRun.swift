import KVCodec

/// A maximal run of a sequence's tokens that are of one nature.
enum TokenRun {
    /// Ids of the tokens in `range`.
    case text(range: Range<Int>)
    /// Placeholders: the tokens in `range` stand for the media's elements from `offset` on.
    case media(digest: Digest, offset: Int, range: Range<Int>)

    var range: Range<Int> {
        switch self {
        case .text(let range), .media(_, _, let range): range
        }
    }
}

extension TokenSequence {
    /// Calls `body` with the runs that make up `range`, in order. Spans that continue each other are one already, so each run is
    /// as long as possible.
    func forEachRun(in range: Range<Int>, _ body: (TokenRun) -> Void) {
        var position = range.lowerBound
        var index = firstSpan(endingAfter: position)
        while position < range.upperBound {
            guard index < media.count, media[index].firstToken < range.upperBound else {
                body(.text(range: position..<range.upperBound))
                return
            }
            if media[index].firstToken > position {
                body(.text(range: position..<media[index].firstToken))
                position = media[index].firstToken
            }
            let span = media[index]
            let end = min(span.range.upperBound, range.upperBound)
            let offset = span.mediaOffset + position - span.firstToken
            index += 1
            body(.media(digest: span.digest, offset: offset, range: position..<end))
            position = end
        }
    }

    /// Index of the first span that ends after `position`.
    private func firstSpan(endingAfter position: Int) -> Int {
        var low = 0
        var high = media.count
        while low < high {
            let middle = (low + high) / 2
            if media[middle].range.upperBound <= position { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
