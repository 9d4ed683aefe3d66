public import KVCodec
import LMDB

/// What a demotion is to do.
public struct DemotionOptions: Hashable, Sendable {
    /// What pages are encoded to, if that makes them smaller.
    public var profile: Profile
    /// Only pages unused for so many seconds.
    public var unusedSeconds = 0
    /// Bytes free, within the quota if there is one and on the file system, at which it is done; nil for all such pages.
    public var freeBytes: Int?

    public init(profile: Profile) { self.profile = profile }
}

/// What a demotion did, or would do.
public struct DemotionReport: Hashable, Sendable {
    public var pages = 0
    /// Bytes of the pages' images before and after.
    public var bytesBefore = 0
    public var bytesAfter = 0
    /// Pages left as they are, because they would not have become smaller, or somebody holds them.
    public var pagesLeft = 0

    public var bytesSaved: Int { bytesBefore - bytesAfter }

    mutating func add(_ other: DemotionReport) {
        pages += other.pages
        bytesBefore += other.bytesBefore
        bytesAfter += other.bytesAfter
        pagesLeft += other.pagesLeft
    }
}

/// A page and the encoding of it that is to be replaced by a smaller one.
struct DemotionCandidate {
    var hash: Digest
    var node: Node
    /// The best that is stored: what is read.
    var encoding: EncodingRecord

    /// nil for a tail piece, and for a page that is stored in no profile with more bits than `profile`.
    init?(_ node: Node, hash: Digest, to profile: Profile) {
        guard node.kind == .page else { return nil }
        let readable = node.encodings.filter { !$0.isQuarantined }
        guard let best = readable.min(by: { $0.keyError + $0.valueError < $1.keyError + $1.valueError }),
            let stored = Profile.numbered(best.profileId), stored.totalBits > profile.totalBits
        else { return nil }
        self.hash = hash
        self.node = node
        encoding = best
    }
}

extension Profile {
    /// Bits of a key and of a value together, for comparing; those of `exact` count as 16 each.
    fileprivate var totalBits: Double { (keyBits ?? 16) + (valueBits ?? 16) }
}

/// Encodes stored pages anew.
struct PageDemoter {
    let store: Store
    let model: ModelSpec
    let encoder: PageEncoder

    /// A page that is smaller than this share of what it was is worth the writing.
    private static let shareMax = 0.9

    /// Reads a page as it is stored and encodes it anew. The error that it has already adds to what the encoding brings.
    ///
    /// - Returns: nil when that makes it hardly smaller.
    func encode(_ candidate: DemotionCandidate) throws -> (image: EncodedPage, encoding: EncodingRecord)? {
        let staging = PageStaging(model: model, pageTokens: candidate.node.ownTokens, firstStagedToken: 0)
        let encoded = try store.withImage(of: PageSegment(whole: candidate)) { image in
            try Self.read(image, into: staging)
            let classes = image.tokenClasses
            let wasExact = image.profile?.isExact ?? false
            return try encoder.encode(
                PageInput(
                    identity: image.identity, tokenCount: image.tokenCount, elementType: image.elementType,
                    layers: try staging.layers(0..<image.tokenCount), positions: image.explicitPositions,
                    salient: classes.indices.filter { classes[$0] == .salient },
                    exact: wasExact ? [] : classes.indices.filter { classes[$0] == .exact },
                    carriedErrors: image.layers.map { $0?.error }),
                executor: Parallel.perLayer(count:body:))
        }
        let keys = store.index.keyRing.keys(of: candidate.node.record.tenantId)
        let image =
            try keys.map {
                EncodedPage(bytes: try SealedImage.seal(encoded.bytes, of: $0.tenant, with: $0.current), errors: encoded.errors)
            } ?? encoded
        guard Double(image.count) < Self.shareMax * Double(candidate.encoding.imageBytes) else { return nil }
        var encoding = candidate.encoding
        encoding.imageBytes = UInt32(image.count)
        encoding.profileId = encoder.profile.id
        encoding.keyEpoch = keys?.current.number ?? 0
        let known = candidate.encoding
        encoding.keyError = max(image.meanError.key, known.keyError)
        encoding.valueError = max(image.meanError.value, known.valueError)
        encoding.createdSeconds = Platform.unixSeconds()
        return (image, encoding)
    }

    private static func read(_ image: PageImage, into staging: PageStaging) throws {
        let tokens = 0..<image.tokenCount
        let threads = Platform.processorCount
        let scratches = (0..<threads).map { _ in DecodeScratch() }
        try Parallel.forEach(staging.layerCount, threads: threads) { layer, worker in
            guard let held = image.layers[layer]?.tokens, !held.isEmpty else { return }
            let destination = try staging.destination(layer, tokens: held)
            try image.decode(
                layer: layer, tokens: held, key: destination.key, value: destination.value, scratch: scratches[worker])
        }
        for layer in 0..<staging.layerCount {
            let first = image.layers[layer]?.tokens.lowerBound ?? tokens.upperBound
            if first > 0 { staging.noteRestored(layer, from: first) }
        }
    }
}

extension PageSegment {
    init(whole candidate: DemotionCandidate) {
        let record = candidate.node.record
        let tokens = Int(record.start)..<Int(record.end)
        self.init(
            hash: candidate.hash, encoding: candidate.encoding, pageFirstToken: Int(record.pageFirstToken), nodeTokens: tokens,
            used: tokens, completeFrom: Int(candidate.encoding.completeFrom), kind: candidate.node.kind)
    }
}
