public import KVCodec
import LMDB

/// One layer's keys and values of the tokens being appended.
public struct LayerTokens {
    /// `[heads, tokens, keyDim]` and `[heads, tokens, valueDim]`, in the model's element type. A sliding-window layer may hold
    /// fewer tokens than are appended: the last ones.
    public var key: TensorView
    public var value: TensorView

    public init(key: TensorView, value: TensorView) {
        self.key = key
        self.value = value
    }
}

/// Takes a sequence's cache as the prefill produces it, and stores it page by page.
///
/// Full pages are encoded with the writer's profile, each once, and are durable soon after they fill; memory stays bounded
/// whatever the length. The last tokens are kept exact until they fill a page. The sequence appears under its name, whole,
/// when `finish` returns; until then it is *building*. Pages that are stored already are not stored again, so that an
/// interrupted write, begun anew, goes on where it was.
///
/// Use a writer from one thread at a time.
public final class SequenceWriter {
    public let name: SequenceName
    public let model: ModelSpec
    public let profile: Profile

    /// Tokens of the sequence so far: those it started from, and those appended.
    public private(set) var tokenCount: Int
    /// Of the appended tokens, how many lay in pages that were stored already.
    public private(set) var reusedTokenCount = 0
    /// Bytes of the page images that were stored for the appended tokens.
    public private(set) var storedBytes = 0

    private let store: Store
    private let publisher: PagePublisher
    private let hasher: ChainHasher
    private let tenantID: UInt32
    /// Of an encrypted tenant, as they are now: it may be given another one while this writes.
    private var keys: TenantKeys? { store.index.keyRing.keys(of: tenantID) }
    private let encoder: PageEncoder
    private let pieceEncoder: PageEncoder
    private let protectedTokens: Set<Int>

    /// Hash of the last full page.
    private var base: Digest
    private var pageFirstToken: Int
    private var pageTokens: TokenSequence
    private let staging: PageStaging
    /// The node that holds the page's first tokens durably, and how many.
    private var tail: (tip: Digest, end: Int)
    /// The segments behind `tail`, whose tensors are read when the page fills.
    private var tailSegments: [PageSegment]
    private var isOpen = true

    init(
        store: Store, name: SequenceName, start: StoredPrefix, tenant: StoredTenant, storedModel: StoredModel,
        profile: Profile, options: EncoderOptions, protectedTokens: Set<Int>, expectedHead: Head?, isReplacing: Bool
    ) throws {
        self.store = store
        self.name = name
        self.profile = profile
        self.protectedTokens = protectedTokens
        model = storedModel.spec
        tokenCount = start.tokenCount
        hasher = try store.hasher(tenant: tenant, model: storedModel)
        tenantID = tenant.id
        encoder = PageEncoder(profile: profile, options: options)
        pieceEncoder = PageEncoder(profile: .exact)
        pageFirstToken = start.tokenCount / store.pageTokens * store.pageTokens
        staging = PageStaging(
            model: storedModel.spec, pageTokens: store.pageTokens, firstStagedToken: start.tokenCount - pageFirstToken)
        let pageStart = pageFirstToken
        tailSegments = start.segments.filter { $0.pageFirstToken == pageStart }
        base = start.segments.last { $0.pageFirstToken < pageStart }?.hash ?? hasher.root
        tail = (start.tip, start.tokenCount - pageFirstToken)
        pageTokens = try store.lastPageTokens(of: start)
        publisher = try PagePublisher(
            store: store, name: name, tenant: tenant, model: storedModel, start: start, profile: profile,
            expectedHead: expectedHead, isReplacing: isReplacing)
    }

    deinit {
        if isOpen { publisher.release() }
    }

    // MARK: - Appending

    /// Appends tokens with their keys and values.
    ///
    /// - Parameters:
    ///   - tokens: the new tokens alone; media spans count from the first of them. Position ids that are nil mean each token's
    ///     index in the whole sequence.
    ///   - layers: one entry per layer of the model. The memory is read before this returns.
    /// - Throws: `StoreError.modelMismatch` and `invalidArgument` for tensors or tokens that do not fit; nothing is taken then, and the
    ///   writer can go on. After any other error, in storing a page, the writer is done; what it has published stays, and a new
    ///   writer of the same name goes on from there.
    public func append(_ tokens: TokenSequence, layers: [LayerTokens]) throws {
        try checkOpen()
        try check(tokens, layers)
        do {
            var done = 0
            while done < tokens.count {
                let count = min(store.pageTokens - pageTokens.count, tokens.count - done)
                let chunk = done..<done + count
                if count == store.pageTokens {
                    try staging.borrow(layers, chunk: chunk, of: tokens.count)
                } else {
                    try staging.stage(layers, chunk: chunk, of: tokens.count, at: pageTokens.count)
                }
                pageTokens = try pageTokens.appending(tokens[done..<done + count], origin: pageFirstToken)
                tokenCount += count
                done += count
                if pageTokens.count == store.pageTokens { try sealPage() }
            }
        } catch {
            throw fail(error)
        }
    }

    private func check(_ tokens: TokenSequence, _ layers: [LayerTokens]) throws {
        guard tokenCount + tokens.count <= TokenSequence.countMax else {
            throw StoreError(.invalidArgument, "a sequence has at most \(TokenSequence.countMax) tokens")
        }
        if let positions = tokens.positions, let earlier = pageTokens.positions, positions.count != earlier.count {
            throw StoreError(
                .invalidArgument, "position ids have \(positions.count) streams, the tokens before have \(earlier.count)")
        }
        guard layers.count == model.layers.count else {
            throw StoreError(.modelMismatch, "the model '\(model.name)' has \(model.layers.count) layers, not \(layers.count)")
        }
        for (index, (layer, geometry)) in zip(layers, model.layers).enumerated() {
            try layer.check(index, against: geometry, elementType: model.elementType, tokens: tokens.count)
        }
    }

    // MARK: - Sealing

    /// Stores the page that has just filled, unless it is stored already, and begins the next one.
    private func sealPage() throws {
        let canonical = pageTokens.canonical(origin: pageFirstToken)
        let hash = hasher.page(after: base, tokens: canonical)
        let lease = try? store.lease(hash, tenant: publisher.tenantID)
        if try store.hasEncoding(
            of: hash, profile: profile, completeFrom: pageCompleteFrom, orInherited: tailSegments.contains { $0.encoding.isLossy }
        ) {
            reusedTokenCount += store.pageTokens - tail.end
            try publisher.adopt(hash, end: store.pageTokens, tokenCount: tokenCount, lease: lease)
        } else {
            let inherited = try readTail()
            let page = try encode(
                encoder, hash: hash, parent: base, start: 0, end: store.pageTokens, canonical: canonical, inherited: inherited)
            try publisher.add(
                try node(.page, hash: hash, parent: base, tokens: 0..<store.pageTokens, canonical, profile, page, inherited),
                hash: hash, image: page, tokenCount: tokenCount)
            storedBytes += page.bytes.count
        }
        base = hash
        tail = (hash, 0)
        tailSegments = []
        pageFirstToken += store.pageTokens
        pageTokens = try TokenSequence(ids: [])
        staging.clear()
    }

    /// First token of the page that has filled from which every layer will be present, once its first tokens are read back.
    private var pageCompleteFrom: Int {
        let staged = staging.completeFrom(staging.firstStagedToken..<store.pageTokens)
        if staged > staging.firstStagedToken { return staged }
        return tailSegments.reduce(0) { $1.completeFrom > $1.used.lowerBound ? min($1.completeFrom, $1.used.upperBound) : $0 }
    }

    /// Stores the tokens after the last full page that no node holds yet, exact.
    private func storeTail() throws {
        let end = pageTokens.count
        guard end > tail.end else { return }
        let canonical = pageTokens.canonical(origin: pageFirstToken)
        let parent = tail.end == 0 ? base : tail.tip
        let hash = hasher.piece(after: parent, start: tail.end, tokens: canonical)
        let lease = try? store.lease(hash, tenant: publisher.tenantID)
        if try store.hasEncoding(
            of: hash, profile: .exact, completeFrom: staging.completeFrom(tail.end..<end), orInherited: false)
        {
            reusedTokenCount += end - tail.end
            try publisher.adopt(hash, end: end, tokenCount: tokenCount, lease: lease)
        } else {
            let page = try encode(
                pieceEncoder, hash: hash, parent: parent, start: tail.end, end: end, canonical: canonical, inherited: .none)
            try publisher.add(
                try node(.piece, hash: hash, parent: parent, tokens: tail.end..<end, canonical, .exact, page, .none),
                hash: hash, image: page, tokenCount: tokenCount)
            storedBytes += page.bytes.count
        }
        tail = (hash, end)
    }

    /// The index's record of a page or piece whose image is still to be placed.
    private func node(
        _ kind: Node.Kind, hash: Digest, parent: Digest, tokens: Range<Int>, _ canonical: [UInt8], _ profile: Profile,
        _ page: EncodedPage, _ inherited: InheritedError
    ) throws -> Node {
        let encoding = EncodingRecord(
            volumeId: 0, pageId: 0, imageBytes: UInt32(page.count), profileId: profile.id,
            flags: inherited.lossyTokens.isEmpty ? 0 : EncodingRecord.inheritedFlag,
            keyError: page.meanError.key, valueError: page.meanError.value,
            completeFrom: UInt32(staging.completeFrom(tokens)), keyEpoch: keys?.current.number ?? 0,
            createdSeconds: Platform.unixSeconds())
        let record = NodeRecord(
            base: base, parent: parent, pageFirstToken: UInt64(pageFirstToken), start: UInt32(tokens.lowerBound),
            end: UInt32(tokens.upperBound), parentEnd: UInt32(tokens.lowerBound),
            modelId: publisher.modelID, tenantId: publisher.tenantID, children: 0, heads: 0, tokenBytes: UInt32(canonical.count),
            kind: kind.rawValue, encodingCount: 1, flags: 0, pins: 0, createdSeconds: Platform.unixSeconds(), createdAccess: 0,
            hash: .zero, next: 0)
        var node = Node(record: record, encodings: [encoding], tokens: canonical)
        try node.sealIfEncrypted(with: keys, hash: hash)
        return node
    }

    private func encode(
        _ encoder: PageEncoder, hash: Digest, parent: Digest, start: Int, end: Int, canonical: [UInt8],
        inherited: InheritedError
    ) throws -> EncodedPage {
        let identity = PageIdentity(
            modelFingerprint: model.fingerprint, chainHash: hash, parentHash: parent,
            firstToken: pageFirstToken + start, tokens: canonical)
        let input = PageInput(
            identity: identity, tokenCount: end - start, elementType: model.elementType,
            layers: try staging.layers(start..<end),
            positions: pageTokens.explicitPositions(of: start..<end, origin: pageFirstToken),
            salient: (start..<end).filter { protectedTokens.contains(pageFirstToken + $0) }.map { $0 - start },
            exact: inherited.lossyTokens.map { $0 - start },
            carriedErrors: inherited.lossyTokens.isEmpty
                ? [] : model.layers.map { _ in inherited.mean(over: end - start) })
        let page = try encoder.encode(input, executor: Parallel.perLayer(count:body:))
        guard let keys else { return page }
        return EncodedPage(bytes: try SealedImage.seal(page.bytes, of: keys.tenant, with: keys.current), errors: page.errors)
    }

    /// Reads the tensors of the page's first tokens back from the nodes that hold them, into the staging memory. Tokens that come
    /// from a lossy page are kept as they are from now on: a page is never re-encoded from its own lossy copy.
    private func readTail() throws -> InheritedError {
        guard staging.firstStagedToken > 0 else { return .none }
        var inherited = InheritedError.none
        staging.beginRestore()
        for segment in tailSegments {
            let used = segment.used.clamped(to: 0..<staging.firstStagedToken)
            if used.isEmpty { continue }
            try store.restore(segment, tokens: used, into: staging)
            inherited.add(segment, tokens: used)
        }
        return inherited
    }

    // MARK: - Finishing

    /// Makes the appended tokens durable as far as they fill pages. `finish` does it too.
    public func flush() throws {
        try checkOpen()
        do { try publisher.flush() } catch { throw fail(error) }
    }

    /// Stores what is left, and publishes the sequence under its name.
    ///
    /// - Parameters:
    ///   - engineState: opaque bytes that the engine needs beside K and V to go on after the last token.
    ///   - frames: a video's frame table.
    ///   - provenance: where the sequence came from; entries of an existing sequence are kept unless named again.
    ///   - isPinned: whether its pages are kept from being evicted; nil leaves that as it was. A new video is pinned, a new session is
    ///     not.
    /// - Throws: `StoreError.alreadyExists` when a video of the name holds other tokens, `conflict` when another writer changed the
    ///   sequence meanwhile.
    public func finish(
        engineState: [UInt8]? = nil, frames: [VideoFrame] = [], provenance: Provenance = [:], isPinned: Bool? = nil
    ) throws {
        try checkOpen()
        guard frames.count <= Head.framesMax else {
            throw StoreError(.invalidArgument, "a video has at most \(Head.framesMax) frames, not \(frames.count)")
        }
        for frame in frames {
            guard frame.firstToken >= 0, frame.tokenCount >= 0, frame.firstToken <= tokenCount,
                frame.tokenCount <= tokenCount - frame.firstToken
            else {
                throw StoreError(
                    .invalidArgument,
                    "a frame of \(frame.tokenCount) tokens at \(frame.firstToken) leaves the \(tokenCount) tokens of the video")
            }
        }
        do {
            try storeTail()
            try publisher.finish(
                engineState: engineState, frames: frames, provenance: provenance, isPinned: isPinned)
        } catch {
            throw fail(error)
        }
        isOpen = false
    }

    /// Ends the write and deletes what it has published, unless other sequences share it. A writer that is let go without
    /// `finish` or `cancel` leaves its pages for a later write of the same name.
    public func cancel() {
        if isOpen { publisher.remove() }
        isOpen = false
    }

    private func checkOpen() throws {
        guard isOpen else {
            throw StoreError(.invalidArgument, "this writer has finished, failed or was cancelled: open another")
        }
    }

    /// A writer that failed stores nothing more. What it has published stays, for a new writer of the name to go on from.
    private func fail(_ error: any Error) -> any Error {
        publisher.release()
        isOpen = false
        return error
    }
}

/// The error that tokens of a lossy page bring into the page they are copied to.
struct InheritedError {
    /// NMSE times tokens.
    var key: Float = 0
    var value: Float = 0
    /// The tokens, counted from the page's first.
    var lossyTokens: [Int] = []

    static let none = InheritedError()

    /// What it makes of a page of so many tokens.
    func mean(over tokens: Int) -> LayerError { LayerError(key: key / Float(tokens), value: value / Float(tokens)) }

    mutating func add(_ segment: PageSegment, tokens: Range<Int>) {
        guard segment.encoding.isLossy else { return }
        key += segment.encoding.keyError * Float(tokens.count)
        value += segment.encoding.valueError * Float(tokens.count)
        lossyTokens += tokens
    }
}

extension LayerTokens {
    func check(_ index: Int, against geometry: LayerGeometry, elementType: ElementType, tokens: Int) throws {
        let lacks = geometry.slidingWindow == nil ? tokens...tokens : 0...tokens
        for (what, view, dim) in [("keys", key, geometry.keyDim), ("values", value, geometry.valueDim)] {
            guard view.heads == geometry.keyValueHeads, view.dim == dim, lacks.contains(view.tokens) else {
                throw StoreError(
                    .modelMismatch,
                    "layer \(index): the \(what) are [\(view.heads), \(view.tokens), \(view.dim)], the model has [\(geometry.keyValueHeads), \(tokens), \(dim)]"
                )
            }
            guard view.elementType == elementType else {
                throw StoreError(
                    .modelMismatch, "layer \(index): the \(what) are \(view.elementType.name), the model has \(elementType.name)")
            }
        }
        guard key.tokens == value.tokens else {
            throw StoreError(.modelMismatch, "layer \(index): \(key.tokens) tokens of keys, but \(value.tokens) of values")
        }
    }
}
