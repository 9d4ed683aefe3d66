import KVCodec

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The index's knowledge of a page or tail piece: where it hangs, what tokens it holds, where its encodings lie.
struct Node: Hashable, Sendable {
    enum Kind: UInt8, Sendable {
        /// P tokens, from the page's first to its last.
        case page = 0
        /// The newest tokens of a sequence, exact, until they fill a page.
        case piece = 1
    }

    var record: NodeRecord
    var encodings: [EncodingRecord]
    /// Canonical tokens of the page, from its first token to the end of this node; of an encrypted tenant, sealed.
    /// `Index.tokens(of:)` opens them.
    var content: [UInt8]

    var kind: Kind { record.kind == Kind.page.rawValue ? .page : .piece }

    /// Tokens that this node itself holds.
    var ownTokens: Int { Int(record.end - record.start) }

    /// Index in the sequence of the first token that this node itself holds.
    var firstOwnToken: Int { record.firstOwnToken }

    /// Whether any of the page's tokens up to the node's end is a placeholder of a media span.
    var hasMedia: Bool {
        record.isSealed ? record.sealsMedia : (try? TokenSequence(canonical: content))?.media.isEmpty == false
    }

    static let encodingsMax = 16

    func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(NodeRecord.byteCount + encodings.count * EncodingRecord.byteCount + content.count)
        var record = record
        record.encodingCount = UInt8(encodings.count)
        record.tokenBytes = UInt32(content.count)
        bytes.append(record)
        for encoding in encodings { bytes.append(encoding) }
        bytes.append(contentsOf: content)
        return bytes
    }

    /// - Parameter tokens: canonical.
    init(record: NodeRecord, encodings: [EncodingRecord], tokens: [UInt8]) {
        self.record = record
        self.encodings = encodings
        content = tokens
    }

    init(bytes: UnsafeRawBufferPointer) throws {
        let view = try NodeView(bytes)
        record = view.record
        encodings = (0..<view.encodingCount).map { view.encoding($0) }
        content = Array(view.content)
    }
}

/// A node read in place, without a copy of its tokens.
struct NodeView {
    let record: NodeRecord
    private let bytes: UnsafeRawBufferPointer

    /// - Throws: `StoreError.damaged` when the bytes are no node.
    init(_ bytes: UnsafeRawBufferPointer) throws {
        guard let record = NodeRecord(at: 0, of: bytes), record.hasPossiblePlace,
            (1...UInt8(Node.encodingsMax)).contains(record.encodingCount),
            bytes.count == NodeRecord.byteCount + Int(record.encodingCount) * EncodingRecord.byteCount
                + Int(record.tokenBytes)
        else { throw StoreError(.damaged, "a node's record is damaged; run `reelkv verify`") }
        self.record = record
        self.bytes = bytes
        for index in 0..<encodingCount {
            guard (record.start...record.end).contains(encoding(index).completeFrom) else {
                throw StoreError(.damaged, "an encoding's record is damaged; run `reelkv verify`")
            }
        }
    }

    var encodingCount: Int { Int(record.encodingCount) }

    func encoding(_ index: Int) -> EncodingRecord {
        // the initializer has checked that all encodings lie within the bytes
        EncodingRecord(at: NodeRecord.byteCount + index * EncodingRecord.byteCount, of: bytes)!
    }

    /// Canonical tokens, or what they are sealed in.
    var content: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes.suffix(Int(record.tokenBytes)))
    }

    /// Whether these are the node's canonical tokens. They must not be sealed.
    func hasTokens(_ canonical: [UInt8]) -> Bool {
        canonical.withUnsafeBytes { canonical in
            let tokens = content
            guard tokens.count == canonical.count, let left = tokens.baseAddress, let right = canonical.baseAddress else {
                return tokens.isEmpty && canonical.isEmpty
            }
            return memcmp(left, right, tokens.count) == 0
        }
    }
}

extension NodeRecord {
    /// Index in the sequence of the first token that the node itself holds.
    var firstOwnToken: Int { Int(pageFirstToken) + Int(start) }

    /// Whether a page or piece can lie where the record says.
    fileprivate var hasPossiblePlace: Bool {
        guard start < end, end <= TokenSequence.pageTokensMax, parentEnd == start,
            pageFirstToken <= TokenSequence.countMax, start > 0 || parent == base
        else { return false }
        return kind == Node.Kind.piece.rawValue || (kind == Node.Kind.page.rawValue && start == 0)
    }
}

extension EncodingRecord {
    static let quarantinedFlag: UInt16 = 1
    static let inheritedFlag: UInt16 = 2

    /// Some of its tokens were taken over from a lossy page: others with the same tokens, and their own tensors, have better ones.
    var isInherited: Bool { flags & Self.inheritedFlag != 0 }

    /// Whether it gives something else than what was appended.
    var isLossy: Bool { keyError > 0 || valueError > 0 }

    /// Whether it should take the place of another encoding of the same node and profile.
    func isBetter(than other: EncodingRecord) -> Bool {
        if other.isQuarantined || isInherited != other.isInherited { return other.isQuarantined || other.isInherited }
        return completeFrom < other.completeFrom
    }

    /// A checksum failed once: the image is treated as absent.
    var isQuarantined: Bool {
        get { flags & Self.quarantinedFlag != 0 }
        set { flags = newValue ? flags | Self.quarantinedFlag : flags & ~Self.quarantinedFlag }
    }
}
