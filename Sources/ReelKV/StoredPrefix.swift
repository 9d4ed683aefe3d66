import KVCodec

/// The part of one node that a stored prefix uses.
struct PageSegment: Hashable, Sendable {
    var hash: Digest
    var encoding: EncodingRecord
    /// Index in the sequence of the page's first token.
    var pageFirstToken: Int
    /// The tokens that the node holds, counted from the page's first.
    var nodeTokens: Range<Int>
    /// Those of them that the prefix uses: from the first on.
    var used: Range<Int>
    /// First token of the page from which every layer is present.
    var completeFrom: Int
    var kind: Node.Kind

    /// The used tokens as indices in the sequence.
    var range: Range<Int> { pageFirstToken + used.lowerBound..<pageFirstToken + used.upperBound }
}

/// Why a match ends where it ends.
public enum MatchStop: Hashable, Sendable {
    /// All tokens asked for are stored.
    case complete
    /// The next token is not stored behind these.
    case notStored
    /// The next page is stored, but more lossy than the caller accepts.
    case tooLossy(keyError: Float, valueError: Float)
    /// The next page failed a checksum before and counts as absent.
    case quarantined
    /// The sliding-window layers' last tokens are not stored at any later point.
    case slidingWindowIncomplete
}

/// A sequence's stored beginning: what a match found, or what a video or session consists of.
///
/// A value like any other: it holds no transaction, and no lease. Pages that are moved on the disk later are found again; restoring
/// fails with `pageUnavailable` where they were deleted, evicted or re-encoded meanwhile.
public struct StoredPrefix: Sendable {
    /// Tokens stored, exact to the token.
    public let tokenCount: Int
    /// Why there are no more.
    public let stop: MatchStop
    /// The model whose cache this is.
    public let model: ModelSpec
    public let tenant: String
    /// What the engine asked to keep beside K and V after exactly these tokens; nil when none was kept here.
    public let engineState: [UInt8]?

    let segments: [PageSegment]
    let modelID: UInt32
    let tenantID: UInt32
    let root: Digest

    /// NMSE of the stored keys and values, mean over layers and tokens. Zero when every page is exact.
    public var keyError: Float { meanError(\.keyError) }
    public var valueError: Float { meanError(\.valueError) }

    /// Whether every page is bit-identical to what was appended.
    public var isExact: Bool { segments.allSatisfy { $0.encoding.keyError == 0 && $0.encoding.valueError == 0 } }

    /// Bytes of the page images that hold these tokens.
    public var storedBytes: Int { segments.reduce(0) { $0 + Int($1.encoding.imageBytes) } }

    private func meanError(_ error: KeyPath<EncodingRecord, Float>) -> Float {
        guard tokenCount > 0 else { return 0 }
        let sum = segments.reduce(0.0) { $0 + Double($1.encoding[keyPath: error]) * Double($1.used.count) }
        return Float(sum / Double(tokenCount))
    }

    /// The node that holds the last token, and the end of the used part of it; the root when empty.
    var tip: Digest { segments.last?.hash ?? root }
    /// Its nodes, from the first on.
    var path: [EvictionMemory.PathNode] { segments.map { EvictionMemory.PathNode(hash: $0.hash, isTail: $0.kind == .piece) } }
    var tipEnd: Int { segments.last?.used.upperBound ?? 0 }

    /// The first `count` tokens of this prefix, or all when it has fewer.
    func cut(to count: Int, stop: MatchStop) -> StoredPrefix {
        guard count < tokenCount else { return self }
        var kept: [PageSegment] = []
        for var segment in segments where segment.range.lowerBound < count {
            segment.used = segment.used.lowerBound..<min(segment.used.upperBound, count - segment.pageFirstToken)
            kept.append(segment)
        }
        return StoredPrefix(
            tokenCount: count, stop: stop, model: model, tenant: tenant, engineState: nil, segments: kept,
            modelID: modelID, tenantID: tenantID, root: root)
    }
}

extension StoredPrefix {
    /// The longest beginning of this prefix from which an engine can go on: its sliding-window layers' last tokens must be there.
    func trimmedToSlidingWindows() -> StoredPrefix {
        cut(to: segments.usableCount(windowTokens: model.windowTokens), stop: .slidingWindowIncomplete)
    }
}

extension ModelSpec {
    /// Tokens before the next one that an engine needs of its sliding-window layers: a window of W takes the last W - 1.
    var windowTokens: Int { layers.compactMap(\.slidingWindow).max().map { $0 - 1 } ?? 0 }
}

extension [PageSegment] {
    /// How many of these consecutive segments' tokens an engine can go on after, when it needs `windowTokens` of every layer.
    func usableCount(windowTokens: Int) -> Int {
        guard windowTokens > 0 else { return last?.range.upperBound ?? 0 }
        var runStart = 0  // every layer is present from this token on
        var usable = 0
        for segment in self {
            if segment.completeFrom > segment.used.lowerBound {
                runStart = segment.pageFirstToken + Swift.min(segment.completeFrom, segment.used.upperBound)
            }
            let end = segment.range.upperBound
            if runStart == 0 || end - runStart >= windowTokens { usable = end }
        }
        return usable
    }
}
