public import KVCodec
import LMDB

extension Store {
    /// Opens a writer for a video or session.
    ///
    /// A video is written from its first token. A session goes on from its last token; a new one starts empty, or with the tokens of
    /// `start`: what `longestPrefix` matched, or a video's.
    ///
    /// - Parameters:
    ///   - model: the model's name.
    ///   - profile: how full pages are encoded.
    ///   - options: the encoder's options; the defaults are the best known.
    ///   - protectedTokens: indices in the sequence of tokens to store more precisely (VidKV's semantic token protection).
    ///   - count: how many tokens the caller's cache holds before those that it will append; nil not to check. A session may have been
    ///     evicted since the caller saw it, and what is appended then would stand in the wrong place.
    ///   - replacing: whether a video of the name with other content is replaced when the write finishes.
    /// - Throws: `StoreError` with the codes `notFound` (the model), `conflict` (not `count` tokens are stored), `modelMismatch` (the
    ///   session or `start` belongs to another model, tenant or store), `invalidArgument` (`start` given for a session that exists),
    ///   `readOnly`, `pageUnavailable`.
    public func writer(
        for name: SequenceName, model modelName: String, profile: Profile, options: EncoderOptions = EncoderOptions(),
        protectedTokens: Set<Int> = [], startingFrom start: StoredPrefix? = nil, continuingAfter count: Int? = nil,
        replacing: Bool = false
    ) throws -> SequenceWriter {
        try name.check()
        try checkWritable()
        let model = try storedModel(named: modelName)
        let tenant = try makeTenant(named: name.tenant)
        let existing = try existingSession(name, tenant: tenant)
        if existing != nil, start != nil {
            throw StoreError(
                .invalidArgument, "session '\(name.name)' exists: it goes on from its own last token, not from another prefix")
        }
        let prefix = try existing?.prefix ?? start ?? emptyPrefix(model: model, tenant: tenant)
        guard prefix.modelID == model.id else {
            throw StoreError(.modelMismatch, "the tokens before belong to model '\(prefix.model.name)', not '\(modelName)'")
        }
        guard prefix.tokenCount == 0 || prefix.tenantID == tenant.id else {
            throw StoreError(.modelMismatch, "the tokens before belong to tenant '\(prefix.tenant)', not '\(name.tenant)'")
        }
        guard try prefix.tokenCount == 0 || prefix.root == hasher(tenant: tenant, model: model).root else {
            throw StoreError(.modelMismatch, "the tokens before belong to another store: match them in this one")
        }
        if let count, count != prefix.tokenCount {
            throw StoreError(
                .conflict,
                "\(name) has \(prefix.tokenCount) tokens stored, not \(count): match the whole sequence, and append what comes after"
            )
        }
        try checkPageSize(model.spec)
        // a session that goes on was used; a prefix given was counted when it was looked up
        if let existing, existing.prefix.tokenCount > 0 { noteUse(of: existing.prefix) }
        return try SequenceWriter(
            store: self, name: name, start: prefix.tokenCount == 0 ? try emptyPrefix(model: model, tenant: tenant) : prefix,
            tenant: tenant, storedModel: model, profile: profile, options: options, protectedTokens: protectedTokens,
            expectedHead: existing?.head, isReplacing: replacing)
    }

    /// - Throws: `StoreError.invalidArgument` for a model whose pages would be larger than an image can be.
    func checkPageSize(_ model: ModelSpec) throws {
        guard model.exactBytesPerToken <= Self.pageBytesMax / pageTokens else {
            throw StoreError(
                .invalidArgument,
                "a page of \(pageTokens) tokens of the model '\(model.name)' has more than \(Self.pageBytesMax >> 20) MiB: create the store with smaller pages"
            )
        }
    }

    private func existingSession(
        _ name: SequenceName, tenant: StoredTenant
    ) throws -> (head: Head, prefix: StoredPrefix)? {
        guard name.kind == .session else { return nil }
        return try read { transaction in
            let key = HeadKey(tenant: tenant.id, name: name.name)
            guard let head = try index.head(.session, key, in: transaction) else { return nil }
            let prefix = try prefix(of: head, tenant: tenant, in: transaction)
            guard prefix.tokenCount == head.record.tokenCount else {
                throw StoreError(
                    .pageUnavailable,
                    "only the first \(prefix.tokenCount) of session '\(name.name)''s \(head.record.tokenCount) tokens can be read: truncate it to them and append again"
                )
            }
            return (head, prefix)
        }
    }

    private func emptyPrefix(model: StoredModel, tenant: StoredTenant) throws -> StoredPrefix {
        StoredPrefix(
            tokenCount: 0, stop: .complete, model: model.spec, tenant: tenant.name, engineState: nil, segments: [],
            modelID: model.id, tenantID: tenant.id, root: try hasher(tenant: tenant, model: model).root)
    }

    /// Whether a node is stored in that profile, with all layers from `completeFrom` on, and its image is where it should be: after a
    /// crash of the machine a relaxed writer's last images may not be.
    ///
    /// - Parameter orInherited: whether one that took over tokens of a lossy page will do.
    func hasEncoding(of hash: Digest, profile: Profile, completeFrom: Int, orInherited: Bool) throws -> Bool {
        var missed: VolumeSet.Location?
        while let encoding = try encoding(of: hash, profile: profile, completeFrom: completeFrom, orInherited: orInherited) {
            do {
                let isThere = try StoreError.translating {
                    try volumes.volume(encoding.volumeId).withImage(encoding.pageId, readsAhead: false) { bytes in
                        (try? StoredImage.chainHash(of: bytes)) == hash
                    }
                }
                if isThere == true { return true }
                try write { try index.quarantine(hash, volume: encoding.volumeId, page: encoding.pageId, in: $0) }
            } catch let error as StoreError where error.code == .pageUnavailable {
                // It may have been moved since the index was read. Where the index says again that it lies there, its file is lost:
                // store it anew.
                if encoding.location == missed {
                    try write { try index.quarantine(hash, volume: encoding.volumeId, page: encoding.pageId, in: $0) }
                }
                missed = encoding.location
            }
        }
        return false
    }

    private func encoding(
        of hash: Digest, profile: Profile, completeFrom: Int, orInherited: Bool
    ) throws -> EncodingRecord? {
        let found = try read { transaction in
            try index.nodes.withValue(hash, in: transaction) { bytes in
                let node = try NodeView(bytes)
                return (0..<node.encodingCount).map { node.encoding($0) }.first { encoding in
                    encoding.profileId == profile.id && !encoding.isQuarantined && encoding.completeFrom <= completeFrom
                        && (orInherited || !encoding.isInherited)
                }
            }
        }
        return found ?? nil
    }
}
