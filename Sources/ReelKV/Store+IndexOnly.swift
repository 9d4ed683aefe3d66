import KVCodec
import LMDB

extension Store {
    /// Enters sequences into the index as if their full pages were stored, without any page image: for measuring the index alone.
    /// Restoring such a page fails; everything else goes the usual way.
    ///
    /// - Parameter sequences: names and tokens; each becomes a session. They are entered in one transaction.
    package func enterWithoutImages(_ sequences: [(name: String, tokens: TokenSequence)], model modelName: String) throws {
        let model = try storedModel(named: modelName)
        let tenant = try makeTenant(named: Store.defaultTenant)
        let hasher = try hasher(tenant: tenant, model: model)
        try write { transaction in
            let volume = try makeVolumeWithoutFile(in: transaction)
            for (name, tokens) in sequences {
                let pages = tokens.count / pageTokens
                var base = hasher.root
                for page in 0..<pages {
                    base = try enterWithoutImage(
                        tokens, page: page, after: base, hasher, volume: volume, model: model.id, tenant: tenant.id,
                        in: transaction)
                }
                let head = Head(
                    record: HeadRecord(
                        tip: base, root: hasher.root, tokenCount: UInt64(pages * pageTokens),
                        tipEnd: UInt32(pages == 0 ? 0 : pageTokens), modelId: model.id, tenantId: tenant.id,
                        profileId: Profile.exact.id, kind: SequenceKind.session.rawValue, flags: 0, frameCount: 0, turnCount: 0,
                        provenanceBytes: 0, writerProcess: 0, createdSeconds: 0, updatedSeconds: 0, writerStarted: 0))
                try index.replaceHead(.session, HeadKey(tenant: tenant.id, name: name), with: head, in: transaction)
            }
        }
    }

    /// A volume for pages that lie nowhere.
    func makeVolumeWithoutFile() throws -> UInt64 { try write { try makeVolumeWithoutFile(in: $0) } }

    private func makeVolumeWithoutFile(in transaction: borrowing WriteTransaction) throws -> UInt64 {
        let volume = try index.takeID(\.nextVolumeId, in: transaction)
        try index.putVolume(
            VolumeRecord(
                state: VolumeRecord.sealedState, liveBytes: 0, livePages: 0, writtenBytes: 0, writtenPages: 0,
                createdSeconds: 0, sealedSeconds: 0), id: volume, in: transaction)
        return volume
    }

    /// Enters a page, or the piece of one that the sequence ends with.
    func enterWithoutImage(
        _ tokens: TokenSequence, page: Int, after base: Digest, _ hasher: ChainHasher, volume: UInt64, model: UInt32,
        tenant: UInt32, in transaction: borrowing WriteTransaction
    ) throws -> Digest {
        let range = page * pageTokens..<min(tokens.count, (page + 1) * pageTokens)
        let isPiece = range.count < pageTokens
        var canonical: [UInt8] = []
        tokens.appendCanonical(of: range, origin: 0, to: &canonical)
        let hash =
            isPiece ? hasher.piece(after: base, start: 0, tokens: canonical) : hasher.page(after: base, tokens: canonical)
        let record = NodeRecord(
            base: base, parent: base, pageFirstToken: UInt64(range.lowerBound), start: 0, end: UInt32(range.count),
            parentEnd: 0, modelId: model, tenantId: tenant, children: 0, heads: 0,
            tokenBytes: UInt32(canonical.count), kind: (isPiece ? Node.Kind.piece : .page).rawValue, encodingCount: 1, flags: 0,
            pins: 0,
            createdSeconds: 0,
            createdAccess: try index.counters(in: transaction).accesses, hash: hash, next: 0)
        let encoding = EncodingRecord(
            volumeId: volume, pageId: UInt64(page + 1), imageBytes: 1, profileId: Profile.exact.id, flags: 0, keyError: 0,
            valueError: 0, completeFrom: 0, keyEpoch: 0, createdSeconds: 0)
        _ = try index.publish(Node(record: record, encodings: [encoding], tokens: canonical), hash: hash, in: transaction)
        return hash
    }
}
