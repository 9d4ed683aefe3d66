import KVCodec
import LMDB

extension Store {
    /// The longest stored prefix of a token sequence, exact to the token: whole pages by their chain hash, then the page or
    /// tail piece that agrees for longest with what is left.
    ///
    /// - Parameters:
    ///   - tokens: the whole sequence, from its first token.
    ///   - model: the name of the model. Only caches of its fingerprint and geometry match.
    ///   - tenant: whose caches may match.
    ///   - acceptance: how lossy a page may be.
    ///   - isCounted: whether the look-up counts as a use of the pages, for the statistics and for the order of eviction. One that only
    ///     looks should not.
    /// - Returns: a prefix that may be empty. A tenant that has stored nothing matches nothing.
    /// - Throws: `StoreError.notFound` for an unknown model.
    /// - Complexity: one look-up per matched page, and one search for the rest, which compares those branches of the page that agree in
    ///   its first 112 tokens.
    public func longestPrefix(
        of tokens: TokenSequence, model name: String, tenant tenantName: String = Store.defaultTenant,
        accepting acceptance: Acceptance = .any, isCounted: Bool = true
    ) throws -> StoredPrefix {
        let prefix = try match(tokens, model: name, tenant: tenantName, accepting: acceptance).prefix
        if isCounted { noteLookup(prefix, tokens: tokens.count) }
        return prefix
    }

    /// How many of the index's records a look-up reads: what its time follows from.
    package func recordsRead(lookingUp tokens: TokenSequence, model: String, tenant: String) throws -> Int {
        try match(tokens, model: model, tenant: tenant, accepting: .any).recordsRead
    }

    private func match(
        _ tokens: TokenSequence, model name: String, tenant tenantName: String, accepting acceptance: Acceptance
    ) throws -> (prefix: StoredPrefix, recordsRead: Int) {
        try read { transaction in
            guard let model = try index.model(named: name, in: transaction) else {
                throw StoreError(.notFound, "no model '\(name)' in the store: `reelkv model ls` lists them")
            }
            guard let tenant = try index.tenant(named: tenantName, in: transaction) else {
                let nothing = StoredPrefix(
                    tokenCount: 0, stop: .notStored, model: model.spec, tenant: tenantName, engineState: nil,
                    segments: [], modelID: model.id, tenantID: 0, root: .zero)
                return (nothing, 0)
            }
            var search = PrefixSearch(
                index: index, hasher: try hasher(tenant: tenant, model: model), keys: index.keyRing.keys(of: tenant),
                tokens: tokens, pageTokens: pageTokens,
                windowTokens: model.spec.windowTokens, acceptance: acceptance)
            try search.run(in: transaction)
            let prefix = StoredPrefix(
                tokenCount: search.matched, stop: search.stop, model: model.spec, tenant: tenantName,
                engineState: try index.engineState(after: search.segments.last, in: transaction),
                segments: search.segments, modelID: model.id, tenantID: tenant.id, root: search.hasher.root)
            return (prefix.trimmedToSlidingWindows(), search.recordsRead)
        }
    }
}

/// One search for the longest stored prefix, within one transaction.
private struct PrefixSearch {
    let index: Index
    let hasher: ChainHasher
    /// Of an encrypted tenant.
    let keys: TenantKeys?
    let tokens: TokenSequence
    let pageTokens: Int
    /// Tokens that an engine needs of sliding-window layers to go on.
    let windowTokens: Int
    let acceptance: Acceptance

    /// The hash of the last page that matched.
    private var base = Digest.zero
    /// The record behind it where the next one probably is; 0 for none.
    private var next: UInt64 = 0
    /// The canonical tokens of the next page; none where the rest does not fill one.
    private var canonical: [UInt8] = []
    private(set) var segments: [PageSegment] = []
    private(set) var stop = MatchStop.complete
    private(set) var recordsRead = 0

    var matched: Int { segments.last?.range.upperBound ?? 0 }

    init(
        index: Index, hasher: ChainHasher, keys: TenantKeys?, tokens: TokenSequence, pageTokens: Int, windowTokens: Int,
        acceptance: Acceptance
    ) {
        self.windowTokens = windowTokens
        self.index = index
        self.hasher = hasher
        self.keys = keys
        self.tokens = tokens
        self.pageTokens = pageTokens
        self.acceptance = acceptance
    }

    mutating func run(in transaction: borrowing ReadTransaction) throws {
        segments.reserveCapacity(tokens.count / pageTokens + 2)
        base = hasher.root
        prepareNextPage()
        while !canonical.isEmpty {
            // Behind a page lies mostly the page that is looked for: comparing its tokens takes less than to hash them.
            if next > 0 { try walk(in: transaction) }
            guard next == 0, !canonical.isEmpty else { continue }
            let hash = hasher.page(after: base, tokens: canonical)
            recordsRead += 1
            guard try index.nodes.withValue(hash, in: transaction, { try take(NodeView($0)) }) == true else { break }
        }
        guard matched < tokens.count else { return }
        try searchInPage(after: base, in: transaction)
    }

    /// Takes the pages that lie from record `next` on, for as long as they are the ones that come next in the sequence.
    private mutating func walk(in transaction: borrowing ReadTransaction) throws {
        var number = next
        next = 0
        try index.nodes.records.forEachRaw(in: .from(number), in: transaction) { key, bytes in
            recordsRead += 1
            guard !canonical.isEmpty, try BigEndianUInt64.decode(key) == number, try take(NodeView(bytes)) else { return .stop }
            number += 1
            guard next == number else { return .stop }
            next = 0
            return .continue
        }
    }

    /// Adds a page, if it is the next of the sequence and stored in an encoding that is accepted. Its tokens are compared whatever led
    /// to it: a hit must be right even where the index is not.
    private mutating func take(_ node: NodeView) throws -> Bool {
        let record = node.record
        guard record.kind == Node.Kind.page.rawValue, record.parent == base, record.firstOwnToken == matched,
            record.end == pageTokens, hasNextTokens(node), let encoding = acceptance.best(of: node)
        else { return false }
        segments.append(PageSegment(hash: record.hash, node: node, encoding: encoding, usedEnd: pageTokens))
        base = record.hash
        next = record.next
        prepareNextPage()
        return true
    }

    /// The hash stands for a sealed page's tokens: nobody makes one without the salt.
    private func hasNextTokens(_ node: NodeView) -> Bool {
        node.record.isSealed
            ? keys != nil && node.record.hash == hasher.page(after: base, tokens: canonical) : node.hasTokens(canonical)
    }

    private mutating func prepareNextPage() {
        canonical.removeAll(keepingCapacity: true)
        guard tokens.count - matched >= pageTokens else { return }
        tokens.appendCanonical(of: matched..<matched + pageTokens, origin: 0, to: &canonical)
    }

    // MARK: Inside a page

    /// Finds the child of `base` that agrees for longest with the next tokens. Children stand in token order, so the best ones
    /// stand next to where the query would: the walk ends, either way, where not even the order keys agree for longer.
    private mutating func searchInPage(after base: Digest, in transaction: borrowing ReadTransaction) throws {
        let start = segments.last.map { $0.pageFirstToken + pageTokens } ?? 0
        let limit = min(pageTokens, tokens.count - start)
        let key = ChildKey.prefix(base: base, tokens, start..<start + limit, keys: keys)
        var best: (segments: [PageSegment], stop: MatchStop, usable: Int)?
        for reversed in [false, true] {
            let range: KeyRange<RawBytes> = reversed ? .upTo(key) : .from(key)
            try index.children.forEachRaw(in: range, reversed: reversed, in: transaction) { childKey, value in
                recordsRead += 1
                let agreed = Self.agreement(childKey, key)
                let usable = best?.usable ?? 0
                guard agreed > 0, agreed > usable - start, usable < start + limit else { return .stop }
                let (cover, coverStop) = try cover(
                    try DigestKey.decode(value), after: base, from: start, limit: limit, in: transaction)
                let coverUsable = (segments + cover).usableCount(windowTokens: windowTokens)
                if best == nil || coverUsable > usable { best = (cover, coverStop, coverUsable) }
                return .continue
            }
        }
        segments += best?.segments ?? []
        stop = matched == tokens.count ? .complete : best?.stop ?? .notStored
    }

    /// Tokens in which a child's key and the query's order key agree, at least: the hash at the end of a child's key is compared too,
    /// so that no child further away agrees in more. Without bound where all the tokens that keys hold agree.
    private static func agreement(_ childKey: UnsafeRawBufferPointer, _ key: [UInt8]) -> Int {
        let bytes = zip(childKey, key).prefix { $0 == $1 }.count
        guard bytes >= ChildKey.orderStart else { return 0 }  // another base
        let tokens = (bytes - ChildKey.orderStart) / 4
        return tokens == TokenSequence.orderedTokensMax ? .max : tokens
    }

    /// What of the page a child covers: its own tokens, and, for a tail piece, the ones before it by its ancestors.
    private func cover(
        _ hash: Digest, after base: Digest, from start: Int, limit: Int, in transaction: borrowing ReadTransaction
    ) throws -> (segments: [PageSegment], stop: MatchStop) {
        let agreed = try index.nodes.withValue(hash, in: transaction) { bytes in
            let node = try NodeView(bytes)
            guard node.record.isSealed else {
                return try tokens.commonPrefix(from: start, limit: limit, canonical: node.content)
            }
            return try index.tokens(of: node).withUnsafeBytes {
                try tokens.commonPrefix(from: start, limit: limit, canonical: $0)
            }
        }
        guard let agreed, agreed > 0 else { return ([], .notStored) }
        return try index.chain(
            endingAt: hash, end: agreed, after: base, from: start, hasher: hasher, accepting: acceptance, in: transaction)
    }
}

extension Index {
    /// The nodes that hold the tokens from `start` on, up to `end` of `hash`'s page, first ones first, as far as their encodings are
    /// accepted. Every node on the way must have the hash that it is stored under, which covers its tokens and those before:
    /// whatever befell the index, no node passes for another.
    ///
    /// - Parameters:
    ///   - base: what stands before `start`, the first token of a page: the hash of the page before, or the root.
    /// - Throws: `StoreError.damaged` for a chain that does not lead there.
    func chain(
        endingAt hash: Digest, end: Int, after base: Digest, from start: Int, hasher: ChainHasher,
        accepting acceptance: Acceptance, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (segments: [PageSegment], stop: MatchStop) {
        var links: [Link] = []
        var hash = hash
        var end = end
        while hash != base {
            let found = try nodes.withValue(hash, in: transaction) { bytes in
                let node = try NodeView(bytes)
                guard node.record.firstOwnToken >= start, try hasher.hash(of: node.record, tokens: tokens(of: node)) == hash
                else {
                    throw StoreError(.damaged, "node \(hash.hex.prefix(16)) is not what its hash says; run `reelkv verify`")
                }
                let contributes = end > node.record.start
                return (
                    link: contributes ? Link(hash: hash, node: node, end: end, acceptance: acceptance) : nil,
                    record: node.record
                )
            }
            guard let (link, record) = found else {
                throw StoreError(
                    .damaged, "the index lacks node \(hash.hex.prefix(16)), which others refer to; run `reelkv verify`")
            }
            if let link { links.append(link) }
            hash = record.parent
            end = record.start == 0 ? .max : min(end, Int(record.parentEnd))
        }
        var segments: [PageSegment] = []
        var reached = start
        for link in links.reversed() {
            guard link.range.lowerBound == reached else {
                throw StoreError(.damaged, "the pages of a sequence do not join at token \(reached); run `reelkv verify`")
            }
            guard let segment = link.segment else { return (segments, link.refusal) }
            segments.append(segment)
            reached = link.range.upperBound
        }
        return (segments, .notStored)
    }

    /// The engine state kept after the last token of a segment that uses all of its node.
    func engineState(
        after segment: PageSegment?, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [UInt8]? {
        guard let segment, segment.used.upperBound == segment.nodeTokens.upperBound else { return nil }
        return try state(after: segment.hash, in: transaction)
    }
}

/// A node on the way up a chain: what it contributes, or why its encodings were refused.
private struct Link {
    var segment: PageSegment?
    var refusal: MatchStop
    /// The tokens it contributes, as indices in the sequence.
    var range: Range<Int>

    init(hash: Digest, node: NodeView, end: Int, acceptance: Acceptance) {
        let end = min(end, Int(node.record.end))
        range = node.record.firstOwnToken..<Int(node.record.pageFirstToken) + end
        if let encoding = acceptance.best(of: node) {
            segment = PageSegment(hash: hash, node: node, encoding: encoding, usedEnd: end)
        }
        let whole = (0..<node.encodingCount).map { node.encoding($0) }.filter { !$0.isQuarantined }
        refusal =
            whole.isEmpty
            ? .quarantined
            : .tooLossy(keyError: whole.map(\.keyError).min() ?? 0, valueError: whole.map(\.valueError).min() ?? 0)
    }
}

extension PageSegment {
    init(hash: Digest, node: NodeView, encoding: EncodingRecord, usedEnd: Int) {
        self.hash = hash
        self.encoding = encoding
        pageFirstToken = Int(node.record.pageFirstToken)
        nodeTokens = Int(node.record.start)..<Int(node.record.end)
        used = Int(node.record.start)..<usedEnd
        completeFrom = Int(encoding.completeFrom)
        kind = Node.Kind(rawValue: node.record.kind) ?? .page
    }
}
