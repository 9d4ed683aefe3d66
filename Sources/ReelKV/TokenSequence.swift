public import KVCodec

/// A run of placeholder tokens that stand for media: frames of a video, patches of an image.
///
/// Two placeholders are the same token only where their media's digests and the offsets within the media agree, whatever
/// id the tokenizer gives them.
public struct MediaSpan: Hashable, Sendable {
    /// Identifies the decoded media *and* its sampling: frame indices, resize, processor settings.
    public var digest: Digest
    /// Index in the sequence of the span's first token.
    public var firstToken: Int
    /// Tokens in the span.
    public var count: Int
    /// Index within the media of the span's first token: not 0 where text interrupts a video's frames.
    public var mediaOffset: Int

    public init(digest: Digest, firstToken: Int, count: Int, mediaOffset: Int = 0) {
        self.digest = digest
        self.firstToken = firstToken
        self.count = count
        self.mediaOffset = mediaOffset
    }

    /// Indices in the sequence that the span covers.
    public var range: Range<Int> { firstToken..<firstToken + count }
}

/// The tokens a cache was computed from: ids, the media behind placeholder ids, and position ids where they are not 0, 1, 2, ...
public struct TokenSequence: Hashable, Sendable {
    /// One id per token. An id inside a media span is a placeholder and does not matter.
    public let ids: [Int32]
    /// The media spans, in ascending order, apart from each other; spans that continue each other are one.
    public let media: [MediaSpan]
    /// Position ids, one stream (or three for M-RoPE), each with one value per token; nil when a token's position is its index.
    public let positions: [[Int32]]?

    /// The most tokens a sequence may have.
    public static let countMax = 1 << 30
    /// The most tokens a page may have, in any store.
    static let pageTokensMax = 4096

    /// - Throws: `StoreError.invalidArgument` for spans out of order, overlapping or out of range, for a negative id outside a
    ///   span, and for position streams of another length than `ids`.
    public init(ids: [Int32], media: [MediaSpan] = [], positions: [[Int32]]? = nil) throws {
        try Self.check(ids: ids, media: media)
        if let positions {
            guard positions.count == 1 || positions.count == 3, positions.allSatisfy({ $0.count == ids.count }) else {
                throw StoreError(
                    .invalidArgument, "position ids need 1 or 3 streams of \(ids.count) values, one per token")
            }
        }
        self.ids = ids
        self.media = Self.joined(media)
        self.positions = positions
    }

    private init(checkedIDs ids: [Int32], media: [MediaSpan], positions: [[Int32]]?) {
        self.ids = ids
        self.media = Self.joined(media)
        self.positions = positions
    }

    /// Spans that continue each other as one, so that equal sequences are equal however their spans were cut.
    private static func joined(_ media: [MediaSpan]) -> [MediaSpan] {
        var spans: [MediaSpan] = []
        for span in media {
            if let last = spans.last, last.digest == span.digest, last.range.upperBound == span.firstToken,
                last.mediaOffset + last.count == span.mediaOffset
            {
                spans[spans.count - 1].count += span.count
            } else {
                spans.append(span)
            }
        }
        return spans
    }

    public var count: Int { ids.count }

    private static func check(ids: [Int32], media: [MediaSpan]) throws {
        guard ids.count <= countMax else {
            throw StoreError(.invalidArgument, "a sequence has at most \(countMax) tokens, this one has \(ids.count)")
        }
        var end = 0
        for span in media {
            guard span.firstToken >= end, span.count > 0, span.count <= ids.count - span.firstToken else {
                throw StoreError(
                    .invalidArgument,
                    "media span of \(span.count) tokens at \(span.firstToken) overlaps another or leaves the \(ids.count) tokens")
            }
            guard span.mediaOffset >= 0, span.mediaOffset <= countMax - span.count else {
                throw StoreError(
                    .invalidArgument, "\(span.count) tokens at media offset \(span.mediaOffset) are not within 0...\(countMax)")
            }
            try checkText(ids, end..<span.firstToken)
            end = span.firstToken + span.count
        }
        try checkText(ids, end..<ids.count)
    }

    private static func checkText(_ ids: [Int32], _ range: Range<Int>) throws {
        guard let index = range.first(where: { ids[$0] < 0 }) else { return }
        throw StoreError(
            .invalidArgument,
            "token \(index) has the negative id \(ids[index]): a placeholder needs a media span that says what it stands for")
    }

    /// The tokens of `range` as a sequence of their own; spans are cut and counted from the new start.
    public subscript(range: Range<Int>) -> TokenSequence {
        let spans = media.compactMap { span -> MediaSpan? in
            let part = span.range.clamped(to: range)
            guard !part.isEmpty else { return nil }
            return MediaSpan(
                digest: span.digest, firstToken: part.lowerBound - range.lowerBound, count: part.count,
                mediaOffset: span.mediaOffset + part.lowerBound - span.firstToken)
        }
        return TokenSequence(
            checkedIDs: Array(ids[range]), media: spans, positions: positions?.map { Array($0[range]) })
    }

    /// The sequence followed by `next`.
    ///
    /// - Parameter origin: the index in the whole sequence of this value's token 0, from which default positions count.
    /// - Throws: `StoreError.invalidArgument` when the two have different numbers of position streams.
    func appending(_ next: TokenSequence, origin: Int = 0) throws -> TokenSequence {
        let spans = next.media.map {
            MediaSpan(
                digest: $0.digest, firstToken: $0.firstToken + count, count: $0.count, mediaOffset: $0.mediaOffset)
        }
        return TokenSequence(
            checkedIDs: ids + next.ids, media: media + spans, positions: try joinedPositions(with: next, origin: origin))
    }

    private func joinedPositions(with next: TokenSequence, origin: Int) throws -> [[Int32]]? {
        let streams = positions?.count ?? next.positions?.count ?? 0
        guard streams > 0 else { return nil }
        guard (positions?.count ?? streams, next.positions?.count ?? streams) == (streams, streams) else {
            throw StoreError(.invalidArgument, "the tokens' position ids have different numbers of streams")
        }
        let left = positions ?? Self.indices(origin..<origin + count, streams: streams)
        let right = next.positions ?? Self.indices(origin + count..<origin + count + next.count, streams: streams)
        return zip(left, right).map { $0 + $1 }
    }

    private static func indices(_ range: Range<Int>, streams: Int) -> [[Int32]] {
        Array(repeating: range.map { Int32(truncatingIfNeeded: $0) }, count: streams)
    }
}
