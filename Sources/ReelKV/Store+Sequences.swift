import KVCodec
import LMDB

/// What a store knows of a video or session without looking at its pages.
public struct SequenceInfo: Hashable, Sendable {
    public var name: SequenceName
    /// The model's name.
    public var model: String
    /// The profile that its new pages are encoded with.
    public var profileID: UInt16
    public var tokenCount: Int
    /// A video's frames, in order; empty for a session.
    public var frames: [VideoFrame]
    /// A session's turns, in order; empty for a video.
    public var turns: [SessionTurn]
    public var provenance: Provenance
    /// Unix times.
    public var createdSeconds: Int64
    public var updatedSeconds: Int64
    /// Still being written, or left so by a writer that ended before it finished.
    public var isBuilding: Bool
    /// Its pages are not evicted.
    public var isPinned: Bool
    /// Its tenant is encrypted, and the key was not given: frames, turns and provenance are not known.
    public var isLocked: Bool
}

// MARK: - Looking

extension Store {
    /// All videos or sessions, by tenant and name.
    ///
    /// - Parameters:
    ///   - tenant: only this tenant's; nil for all.
    ///   - building: whether to list the ones still being written too.
    public func sequences(
        _ kind: SequenceKind, tenant tenantName: String? = nil, building: Bool = false
    ) throws -> [SequenceInfo] {
        try read { transaction in
            let context = try NameContext(index, in: transaction)
            var found = try index.allHeads(kind, in: transaction).map { context.info($0.key, $0.head, isBuilding: false) }
            if building {
                found += try index.allBuilding(in: transaction).filter { $0.head.kind == kind }
                    .map { context.info($0.key.head, $0.head, isBuilding: true) }
            }
            return found.filter { tenantName == nil || $0.name.tenant == tenantName }
                .sorted { ($0.name.tenant, $0.name.name) < ($1.name.tenant, $1.name.name) }
        }
    }

    /// - Throws: `StoreError.notFound`.
    public func info(of name: SequenceName) throws -> SequenceInfo {
        try read { transaction in
            let (_, key, head) = try requiredHead(name, in: transaction)
            return try NameContext(index, in: transaction).info(key, head, isBuilding: false)
        }
    }

    /// A video's or session's tokens as they are stored: the whole of it, or its beginning where a page is quarantined.
    ///
    /// - Parameter isCounted: whether that counts as a use of the pages, for the order of eviction. One that only looks should not.
    /// - Throws: `StoreError.notFound`.
    public func prefix(of name: SequenceName, isCounted: Bool = true) throws -> StoredPrefix {
        let stored = try read { transaction in
            let (tenant, _, head) = try requiredHead(name, in: transaction)
            return try prefix(of: head, tenant: tenant, in: transaction)
        }
        if isCounted, stored.tokenCount > 0 { noteUse(of: stored) }
        return stored
    }

    /// The tokens of a stored prefix. Placeholder ids read as -1: what they stand for is in the media spans.
    ///
    /// - Throws: `StoreError.pageUnavailable` when its pages were deleted meanwhile.
    public func tokens(of prefix: StoredPrefix) throws -> TokenSequence {
        try read { transaction in
            var whole = try TokenSequence(ids: [])
            // a page's last segment holds the tokens of the whole page so far
            for (index, segment) in prefix.segments.enumerated() {
                if prefix.segments.indices.contains(index + 1),
                    prefix.segments[index + 1].pageFirstToken == segment.pageFirstToken
                {
                    continue
                }
                guard let node = try self.index.node(segment.hash, in: transaction) else {
                    throw StoreError(.pageUnavailable, "a page of this prefix was deleted meanwhile: match again")
                }
                let tokens = try TokenSequence(canonical: try self.index.tokens(of: node))
                whole = try whole.appending(tokens[0..<segment.used.upperBound])
            }
            return whole
        }
    }

    /// The tokens of the page that a prefix ends inside of, counted from the page's first; empty when it ends between pages.
    func lastPageTokens(of prefix: StoredPrefix) throws -> TokenSequence {
        guard let last = prefix.segments.last, last.used.upperBound < pageTokens else { return try TokenSequence(ids: []) }
        return try read { transaction in
            guard let node = try index.node(last.hash, in: transaction) else {
                throw StoreError(.pageUnavailable, "a page of this prefix was deleted meanwhile: match again")
            }
            return try TokenSequence(canonical: try index.tokens(of: node))[0..<last.used.upperBound]
        }
    }

    func requiredHead(
        _ name: SequenceName, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> (tenant: StoredTenant, key: HeadKey, head: Head) {
        let tenant = try requiredTenant(of: name, in: transaction)
        let key = HeadKey(tenant: tenant.id, name: name.name)
        guard Names.isPossible(name.name), let head = try index.head(name.kind, key, in: transaction) else {
            throw Self.noSequence(name)
        }
        return (tenant, key, head)
    }

    private func requiredTenant(
        of name: SequenceName, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> StoredTenant {
        if let tenant = try index.tenant(named: name.tenant, in: transaction) { return tenant }
        // Nobody has named the default tenant, which comes with the first write.
        throw name.tenant == Store.defaultTenant ? Self.noSequence(name) : Self.noTenant(name.tenant)
    }

    private static func noSequence(_ name: SequenceName) -> StoreError {
        let place = name.tenant == Store.defaultTenant ? "the store" : "tenant '\(name.tenant)'"
        return StoreError(
            .notFound, "no \(name.kind.noun) '\(name.name)' in \(place): `reelkv ls \(name.kind.noun)s` lists them")
    }

    func prefix(
        of head: Head, tenant: StoredTenant, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> StoredPrefix {
        guard let model = try index.allModels(in: transaction).first(where: { $0.id == head.record.modelId }) else {
            throw StoreError(.damaged, "the index lacks model \(head.record.modelId), which a sequence uses; run `reelkv verify`")
        }
        let hasher = try hasher(tenant: tenant, model: model)
        let (segments, refusal) = try index.chain(
            endingAt: head.record.tip, end: Int(head.record.tipEnd), after: hasher.root, from: 0, hasher: hasher,
            accepting: .any, in: transaction)
        let count = segments.last?.range.upperBound ?? 0
        guard count <= head.record.tokenCount else {
            throw StoreError(.damaged, "a sequence's last page lies beyond its last token; run `reelkv verify`")
        }
        return StoredPrefix(
            tokenCount: count, stop: count == head.record.tokenCount ? .complete : refusal, model: model.spec,
            tenant: tenant.name, engineState: try index.engineState(after: segments.last, in: transaction),
            segments: segments, modelID: model.id, tenantID: tenant.id, root: hasher.root)
    }
}

/// Names for the ids that heads refer to.
private struct NameContext {
    private let models: [UInt32: String]
    private let tenants: [UInt32: String]

    init(_ index: Index, in transaction: borrowing some Transaction & ~Copyable) throws {
        models = Dictionary(try index.allModels(in: transaction).map { ($0.id, $0.spec.name) }) { first, _ in first }
        tenants = Dictionary(try index.allTenants(in: transaction).map { ($0.id, $0.name) }) { first, _ in first }
    }

    func info(_ key: HeadKey, _ head: Head, isBuilding: Bool) -> SequenceInfo {
        SequenceInfo(
            name: SequenceName(head.kind, key.name, tenant: tenants[key.tenant] ?? "tenant \(key.tenant)"),
            model: models[head.record.modelId] ?? "model \(head.record.modelId)", profileID: head.record.profileId,
            tokenCount: Int(head.record.tokenCount), frames: head.frames, turns: head.turns,
            provenance: head.provenance, createdSeconds: head.record.createdSeconds,
            updatedSeconds: head.record.updatedSeconds, isBuilding: isBuilding, isPinned: head.record.isPinned,
            isLocked: head.sealed != nil)
    }
}

// MARK: - Changing

extension Store {
    /// Deletes a video or session, and the pages that nothing else shares. Unfinished writes of the name whose writer has ended
    /// are deleted with it.
    ///
    /// - Throws: `StoreError.notFound` when there is neither.
    public func remove(_ name: SequenceName) throws {
        try write { transaction in
            let tenant = try requiredTenant(of: name, in: transaction)
            let key = HeadKey(tenant: tenant.id, name: name.name)
            let abandoned = try index.abandoned(name.kind, key, in: transaction)
            try index.remove(abandoned, in: transaction)
            let isFinished = try index.head(name.kind, key, in: transaction) != nil
            if isFinished || abandoned.isEmpty {
                _ = try requiredHead(name, in: transaction)
                try index.replaceHead(name.kind, key, with: nil, in: transaction)
            }
        }
        try removeDeadVolumes()
    }

    /// Makes a session that starts as the first `count` tokens of another sequence. Costs the same whatever the length: the
    /// pages are shared.
    ///
    /// - Throws: `StoreError` with the codes `notFound`, `alreadyExists`, `invalidArgument`, `readOnly`, and `pageUnavailable` for a
    ///   cut behind a quarantined page.
    public func fork(_ source: SequenceName, to name: String, count: Int? = nil) throws {
        let target = SequenceName.session(name, tenant: source.tenant)
        try target.check()
        try write { transaction in
            let (tenant, key, head) = try requiredHead(source, in: transaction)
            let targetKey = HeadKey(tenant: key.tenant, name: name)
            guard try index.head(.session, targetKey, in: transaction) == nil else {
                throw StoreError(.alreadyExists, "a session '\(name)' exists already: choose another name or remove it")
            }
            var fork = try cut(head, of: tenant, to: count ?? Int(head.record.tokenCount), in: transaction)
            guard fork.sealed == nil else { throw Index.noKey("tenant '\(tenant.name)'") }
            fork.record.kind = SequenceKind.session.rawValue
            fork.record.createdSeconds = Platform.unixSeconds()
            fork.record.updatedSeconds = fork.record.createdSeconds
            fork.record.isPinned = false
            fork.frames = []
            fork.provenance = Provenance(["forked_from": source.description])
            try index.replaceHead(.session, targetKey, with: fork, in: transaction)
        }
    }

    /// Drops a session's tokens from `count` on.
    ///
    /// - Throws: `StoreError` with the codes `notFound`, `invalidArgument`, `readOnly`, and `pageUnavailable` for a cut behind a
    ///   quarantined page.
    public func truncate(session name: String, tenant: String = Store.defaultTenant, to count: Int) throws {
        try write { transaction in
            let (tenant, key, head) = try requiredHead(.session(name, tenant: tenant), in: transaction)
            var shorter = try cut(head, of: tenant, to: count, in: transaction)
            shorter.record.updatedSeconds = Platform.unixSeconds()
            try index.replaceHead(.session, key, with: shorter, in: transaction)
        }
        try removeDeadVolumes()
    }

    private func cut(
        _ head: Head, of tenant: StoredTenant, to count: Int, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Head {
        guard count >= 0, count <= head.record.tokenCount else {
            throw StoreError(.invalidArgument, "the sequence has \(head.record.tokenCount) tokens, it cannot be cut to \(count)")
        }
        if count == head.record.tokenCount { return head }
        let whole = try prefix(of: head, tenant: tenant, in: transaction)
        guard count <= whole.tokenCount else {
            throw StoreError(.pageUnavailable, "only the first \(whole.tokenCount) tokens can be read; run `reelkv verify`")
        }
        let prefix = whole.cut(to: count, stop: .complete)
        var shorter = head
        shorter.record.tip = prefix.tip
        shorter.record.tipEnd = UInt32(prefix.tipEnd)
        shorter.record.tokenCount = UInt64(count)
        shorter.turns = head.turns.filter { $0.firstToken < count }
        return shorter
    }
}

extension Index {
    /// Unfinished writes of a name whose writing process has ended.
    func abandoned(
        _ kind: SequenceKind, _ key: HeadKey, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [HeadReference] {
        try allBuilding(in: transaction)
            .filter { $0.key.head == key && $0.head.kind == kind && !$0.head.record.isWriterAlive }
            .map { .building($0.key) }
    }
}

extension HeadRecord {
    var isWriterAlive: Bool { Platform.processStart(writerProcess) == writerStarted }
}
