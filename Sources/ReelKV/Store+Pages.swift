public import KVCodec
import LMDB

/// One stored page or tail piece, in one of its encodings.
public struct StoredPage: Hashable, Sendable {
    public var chainHash: Digest
    /// The model's name.
    public var model: String
    public var tenant: String
    /// Indices in the sequence of the tokens that the page holds.
    public var tokens: Range<Int>
    /// Whether it is a tail piece: the newest tokens of a sequence, exact, until they fill a page.
    public var isTail: Bool
    public var profileID: UInt16
    /// NMSE of keys and values, mean over layers.
    public var keyError: Float
    public var valueError: Float
    public var imageBytes: Int
    public var volumeID: UInt64
    public var pageID: UInt64
    /// A checksum failed once: the page counts as absent.
    public var isQuarantined: Bool
    /// Pages and sequences that refer to it.
    public var references: Int
    /// Unix time.
    public var createdSeconds: Int64
}

extension Store {
    /// Every page of the store, in the order of their chain hashes.
    public func pages() throws -> [StoredPage] {
        try read { transaction in
            let context = try PageContext(index, in: transaction)
            var pages: [StoredPage] = []
            try index.nodes.forEach(in: transaction) { key, value in
                pages += try context.pages(try DigestKey.decode(key), try NodeView(value))
                return .continue
            }
            return pages
        }
    }

    /// The pages of a stored prefix, from the first on, in the encodings that a restore would read, where they lie now.
    ///
    /// - Throws: `StoreError.pageUnavailable` when one was deleted, evicted, re-encoded or found damaged meanwhile.
    public func pages(of prefix: StoredPrefix) throws -> [StoredPage] {
        try read { transaction in
            let context = try PageContext(index, in: transaction)
            return try prefix.segments.map { segment in
                let current = try index.currentEncoding(segment.encoding, of: segment.hash, in: transaction)
                let found = try index.nodes.withValue(segment.hash, in: transaction) { bytes in
                    try context.pages(segment.hash, try NodeView(bytes)).first {
                        $0.pageID == current.pageId && $0.volumeID == current.volumeId
                    }
                }
                guard let page = found ?? nil else {
                    throw StoreError(.pageUnavailable, "a page of this prefix was deleted meanwhile: match again")
                }
                return page
            }
        }
    }

    /// Calls `body` with a page's parsed image, wherever it lies now; it is valid only inside `body`.
    ///
    /// - Throws: `StoreError.pageUnavailable` when the page was deleted, evicted or re-encoded, or is damaged.
    public func withImage<R>(of page: StoredPage, _ body: (PageImage) throws -> R) throws -> R {
        // a page tells nothing of what follows its error: whatever is stored there now will do
        let segment = PageSegment(
            hash: page.chainHash,
            encoding: EncodingRecord(
                volumeId: page.volumeID, pageId: page.pageID, imageBytes: UInt32(clamping: page.imageBytes),
                profileId: page.profileID, flags: EncodingRecord.inheritedFlag, keyError: page.keyError,
                valueError: page.valueError, completeFrom: .max, keyEpoch: 0, createdSeconds: page.createdSeconds),
            pageFirstToken: page.tokens.lowerBound, nodeTokens: 0..<page.tokens.count, used: 0..<page.tokens.count,
            completeFrom: 0, kind: page.isTail ? .piece : .page)
        return try withImage(of: segment, body)
    }
}

private struct PageContext {
    private let models: [UInt32: String]
    private let tenants: [UInt32: String]

    init(_ index: Index, in transaction: borrowing some Transaction & ~Copyable) throws {
        models = Dictionary(try index.allModels(in: transaction).map { ($0.id, $0.spec.name) }) { first, _ in first }
        tenants = Dictionary(try index.allTenants(in: transaction).map { ($0.id, $0.name) }) { first, _ in first }
    }

    func pages(_ hash: Digest, _ node: NodeView) throws -> [StoredPage] {
        let record = node.record
        let first = Int(record.pageFirstToken) + Int(record.start)
        return (0..<node.encodingCount).map { node.encoding($0) }.map { encoding in
            StoredPage(
                chainHash: hash, model: models[record.modelId] ?? "model \(record.modelId)",
                tenant: tenants[record.tenantId] ?? "tenant \(record.tenantId)",
                tokens: first..<first + Int(record.end - record.start), isTail: record.kind == Node.Kind.piece.rawValue,
                profileID: encoding.profileId, keyError: encoding.keyError, valueError: encoding.valueError,
                imageBytes: Int(encoding.imageBytes), volumeID: encoding.volumeId, pageID: encoding.pageId,
                isQuarantined: encoding.isQuarantined, references: Int(record.children) + Int(record.heads),
                createdSeconds: encoding.createdSeconds)
        }
    }
}
