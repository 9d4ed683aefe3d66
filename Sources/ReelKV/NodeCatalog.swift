import KVCodec

/// What a check keeps of every node: its hash, where it stands, and what counts say. About 330 bytes each, with what is kept of its
/// encoding, so that a million nodes can be compared with each other in little memory; tokens and encodings are read again where they
/// are needed.
struct NodeCatalog {
    /// Where a node stands in the catalog.
    typealias Position = Int32

    /// Stands for the root of a chain, which has no node.
    static let root: Position = -1
    /// Stands for a node that is not there.
    static let missing: Position = -2

    struct Entry {
        var number: UInt64
        var parent = NodeCatalog.missing
        var base = NodeCatalog.missing
        var pageFirstToken: UInt32
        var start: UInt16
        var end: UInt16
        var parentEnd: UInt16
        var kind: Node.Kind
        /// Whether its own record says what cannot be.
        var isUnsound = false
        /// Made anew from an image.
        var isRecovered = false
        var model: UInt32
        var tenant: UInt32
        /// As its record says.
        var children: UInt32 = 0
        var heads: UInt32 = 0
        var pins: UInt32 = 0
        /// As counted.
        var countedChildren: UInt32 = 0
        var countedHeads: UInt32 = 0
        var countedPins: UInt32 = 0

        init(_ record: NodeRecord, number: UInt64) {
            self.number = number
            pageFirstToken = UInt32(clamping: record.pageFirstToken)
            start = UInt16(clamping: record.start)
            end = UInt16(clamping: record.end)
            parentEnd = UInt16(clamping: record.parentEnd)
            kind = record.kind == Node.Kind.page.rawValue ? .page : .piece
            model = record.modelId
            tenant = record.tenantId
            children = record.children
            heads = record.heads
            pins = record.pins
        }

        var firstOwnToken: Int { Int(pageFirstToken) + Int(start) }
        /// Tokens of the sequence up to its end.
        var tokenEnd: Int { Int(pageFirstToken) + Int(end) }
    }

    private(set) var hashes: [Digest] = []
    private var positions: [Digest: Position] = [:]
    var entries: [Entry] = []

    var count: Int { entries.count }

    subscript(position: Position) -> Entry {
        get { entries[Int(position)] }
        set { entries[Int(position)] = newValue }
    }

    func hash(_ position: Position) -> Digest { hashes[Int(position)] }

    func position(of hash: Digest) -> Position? { positions[hash] }

    /// - Returns: nil when a node of that hash is there already.
    @discardableResult
    mutating func add(_ entry: Entry, hash: Digest) -> Position? {
        guard positions[hash] == nil else { return nil }
        let position = Position(entries.count)
        positions[hash] = position
        hashes.append(hash)
        entries.append(entry)
        return position
    }

    /// All positions, parents before those that hang on them: by their first token, which is always behind the parent's.
    var parentsFirst: [Position] {
        (0..<Position(entries.count)).sorted { (self[$0].firstOwnToken, $0) < (self[$1].firstOwnToken, $1) }
    }

    /// Whether a node stands where its parent ends.
    func isInPlace(_ entry: Entry, pageTokens: Int) -> Bool {
        guard entry.end <= pageTokens, entry.kind == .piece || entry.end == pageTokens else { return false }
        if entry.firstOwnToken == 0 { return true }
        guard entry.parent >= 0 else { return false }
        let parent = self[entry.parent]
        if entry.start == 0 {
            return parent.kind == .page && Int(parent.pageFirstToken) + pageTokens == Int(entry.pageFirstToken)
        }
        return parent.base == entry.base && parent.pageFirstToken == entry.pageFirstToken && parent.start < entry.start
            && parent.end >= entry.parentEnd
    }
}
