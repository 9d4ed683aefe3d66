import KVCodec
import LMDB

// MARK: - Nodes: reading

extension Index {
    func node(_ hash: Digest, in transaction: borrowing some Transaction & ~Copyable) throws -> Node? {
        try nodes.withValue(hash, in: transaction) { try Node(bytes: $0) }
    }

    /// The node, which must be there because another record refers to it.
    func requiredNode(_ hash: Digest, in transaction: borrowing some Transaction & ~Copyable) throws -> Node {
        guard let node = try node(hash, in: transaction) else {
            throw StoreError(.damaged, "the index lacks node \(hash.hex.prefix(16)), which others refer to; run `reelkv verify`")
        }
        return node
    }
}

// MARK: - Nodes: writing

extension Index {
    /// - Returns: the number of the node's record.
    @discardableResult
    func putNode(_ node: Node, hash: Digest, in transaction: borrowing WriteTransaction) throws -> UInt64 {
        var node = node
        node.record.hash = hash
        return try nodes.put(hash, node.encoded(), in: transaction)
    }

    /// Publishes a node with one encoding, or adds the encoding to a node that is there already.
    ///
    /// - Returns: whether the node is new, and whether its encoding is now referred to: it is not when one of the profile that is as
    ///   good was there first.
    func publish(
        _ node: Node, hash: Digest, in transaction: borrowing WriteTransaction
    ) throws -> (isNew: Bool, isKept: Bool) {
        let encoding = node.encodings[0]
        if var stored = try self.node(hash, in: transaction) {
            if let same = stored.encodings.firstIndex(where: { $0.profileId == encoding.profileId }) {
                let old = stored.encodings[same]
                guard encoding.isBetter(than: old) else {
                    try countWaste(encoding, in: transaction)
                    return (false, false)
                }
                try releaseEncoding(old, of: stored.record.tenantId, in: transaction)
                stored.encodings[same] = encoding
            } else {
                stored.encodings.removeAll(where: \.isLost)
                guard stored.encodings.count < Node.encodingsMax else {
                    try countWaste(encoding, in: transaction)
                    return (false, false)
                }
                stored.encodings.append(encoding)
            }
            try putNode(stored, hash: hash, in: transaction)
            try account(for: encoding, of: stored.record.tenantId, in: transaction)
            return (false, true)
        }
        let isFirst = node.firstOwnToken == 0
        try moveUse(from: node.record.parent, in: transaction)
        try retain(node.record.parent, \.children, isRoot: isFirst, in: transaction)
        let number = try putNode(node, hash: hash, in: transaction)
        if node.kind == .page, !isFirst, var parent = try self.node(node.record.parent, in: transaction) {
            parent.record.next = number
            try putNode(parent, hash: node.record.parent, in: transaction)
        }
        var node = node
        node.record.hash = hash
        try children.put(ChildKey.key(of: node), hash.bytes, in: transaction)
        try account(for: encoding, of: node.record.tenantId, in: transaction)
        return (true, true)
    }

    /// Counts an image that was appended for nothing, so that its bytes are known to be dead.
    private func countWaste(_ encoding: EncodingRecord, in transaction: borrowing WriteTransaction) throws {
        try updateVolume(encoding.volumeId, in: transaction) { volume in
            volume.writtenBytes += UInt64(encoding.imageBytes)
            volume.writtenPages += 1
        }
    }

    /// Counts an encoding as written to, and living in, its volume.
    func account(
        for encoding: EncodingRecord, of tenant: UInt32, in transaction: borrowing WriteTransaction
    ) throws {
        try updateVolume(encoding.volumeId, in: transaction) { volume in
            volume.liveBytes += UInt64(encoding.imageBytes)
            volume.livePages += 1
            volume.writtenBytes += UInt64(encoding.imageBytes)
            volume.writtenPages += 1
        }
        try updateAccount(tenant, in: transaction) { account in
            account.liveBytes += UInt64(encoding.imageBytes)
            account.livePages += 1
        }
    }

    /// Counts one more reference to a node. The chain's root has no record and needs none.
    ///
    /// - Throws: `StoreError.conflict` when the node is gone: somebody deleted it since it was looked up.
    func retain(
        _ hash: Digest, _ counter: WritableKeyPath<NodeRecord, UInt32>, isPinning: Bool = false, isRoot: Bool,
        in transaction: borrowing WriteTransaction
    ) throws {
        if isRoot { return }
        guard var node = try node(hash, in: transaction) else {
            throw StoreError(.conflict, "pages of this sequence were deleted while it was being written: write it again")
        }
        guard node.record[keyPath: counter] < .max else {
            throw StoreError(.damaged, "node \(hash.hex.prefix(16)) counts too many references; run `reelkv verify`")
        }
        node.record[keyPath: counter] += 1
        if isPinning { node.record.pins += 1 }
        try putNode(node, hash: hash, in: transaction)
        try updateRank(of: node, hash: hash, in: transaction)
    }

    /// Counts one reference less, and removes the node, and then its ancestors, where nothing refers to them any more.
    ///
    /// - Parameter isKeeping: whether a node that nothing refers to any more stays, to be used again until it is evicted.
    func release(
        _ hash: Digest, _ counter: WritableKeyPath<NodeRecord, UInt32>, isPinning: Bool = false, isKeeping: Bool = false,
        in transaction: borrowing WriteTransaction
    ) throws {
        var hash = hash
        var counter = counter
        var pins: UInt32 = isPinning ? 1 : 0
        while var node = try node(hash, in: transaction) {
            guard node.record[keyPath: counter] > 0, node.record.pins >= pins else {
                throw StoreError(
                    .damaged, "node \(hash.hex.prefix(16)) is referred to more often than it counts; run `reelkv verify`")
            }
            node.record[keyPath: counter] -= 1
            node.record.pins -= pins
            if isKeeping || node.record.children > 0 || node.record.heads > 0 {
                try putNode(node, hash: hash, in: transaction)
                try updateRank(of: node, hash: hash, in: transaction)
                return
            }
            try removeNode(node, hash: hash, in: transaction)
            hash = node.record.parent
            counter = \.children
            pins = 0
        }
    }

    /// Removes a node that nothing refers to. Its uses count for its parent from now on.
    func removeNode(_ node: Node, hash: Digest, in transaction: borrowing WriteTransaction) throws {
        _ = try children.delete(ChildKey.key(of: node), in: transaction)
        _ = try states.delete(hash, in: transaction)
        try removeUsage(of: node, hash: hash, in: transaction)
        try nodes.delete(hash, in: transaction)
        for encoding in node.encodings { try releaseEncoding(encoding, of: node.record.tenantId, in: transaction) }
    }

    /// Counts an encoding as no longer living in its volume.
    func releaseEncoding(
        _ encoding: EncodingRecord, of tenant: UInt32, in transaction: borrowing WriteTransaction
    ) throws {
        if encoding.isLost { return }
        try updateVolume(encoding.volumeId, in: transaction) { volume in
            volume.liveBytes -= min(volume.liveBytes, UInt64(encoding.imageBytes))
            volume.livePages -= min(volume.livePages, 1)
        }
        try updateAccount(tenant, in: transaction) { account in
            account.liveBytes -= min(account.liveBytes, UInt64(encoding.imageBytes))
            account.livePages -= min(account.livePages, 1)
        }
    }

    /// Marks an encoding as damaged, so that no match offers it again.
    func quarantine(
        _ hash: Digest, volume: UInt64, page: UInt64, in transaction: borrowing WriteTransaction
    ) throws {
        guard var node = try node(hash, in: transaction),
            let index = node.encodings.firstIndex(where: { $0.volumeId == volume && $0.pageId == page })
        else { return }
        node.encodings[index].isQuarantined = true
        try putNode(node, hash: hash, in: transaction)
    }

    /// Marks all encodings in a volume as damaged.
    func quarantine(volume id: UInt64, in transaction: borrowing WriteTransaction) throws {
        // in a volume that was compacted away nothing lies any more
        guard try volumes.contains(id, in: transaction) else { return }
        var affected: [(hash: Digest, node: Node)] = []
        try nodes.forEach(in: transaction) { key, value in
            let view = try NodeView(value)
            guard (0..<view.encodingCount).contains(where: { view.encoding($0).volumeId == id }) else { return .continue }
            affected.append((try DigestKey.decode(key), try Node(bytes: value)))
            return .continue
        }
        for (hash, var node) in affected {
            for index in node.encodings.indices where node.encodings[index].volumeId == id {
                node.encodings[index].isQuarantined = true
            }
            try putNode(node, hash: hash, in: transaction)
        }
    }
}

// MARK: - Volumes

extension Index {
    func volume(_ id: UInt64, in transaction: borrowing some Transaction & ~Copyable) throws -> VolumeRecord? {
        try StoreError.translating {
            try volumes.withValue(id, in: transaction) { bytes in
                guard let record = VolumeRecord(bytes: bytes) else {
                    throw StoreError(.damaged, "the record of volume \(id) is damaged; run `reelkv verify`")
                }
                return record
            }
        }
    }

    func putVolume(_ record: VolumeRecord, id: UInt64, in transaction: borrowing WriteTransaction) throws {
        var bytes: [UInt8] = []
        bytes.append(record)
        try volumes.put(id, bytes, in: transaction)
    }

    func updateVolume(
        _ id: UInt64, in transaction: borrowing WriteTransaction, _ change: (inout VolumeRecord) -> Void
    ) throws {
        guard var record = try volume(id, in: transaction) else {
            throw StoreError(.damaged, "the index lacks volume \(id), which a page lies in; run `reelkv verify`")
        }
        change(&record)
        try putVolume(record, id: id, in: transaction)
    }

    func allVolumes(in transaction: borrowing some Transaction & ~Copyable) throws -> [(id: UInt64, record: VolumeRecord)] {
        var all: [(id: UInt64, record: VolumeRecord)] = []
        try volumes.forEachRaw(in: .all, in: transaction) { key, value in
            guard key.count == 8, let record = VolumeRecord(bytes: value) else {
                throw StoreError(.damaged, "a volume's record is damaged; run `reelkv verify`")
            }
            all.append((UInt64(bigEndian: key.loadUnaligned(as: UInt64.self)), record))
            return .continue
        }
        return all
    }
}

extension VolumeRecord {
    static let activeState: UInt8 = 0
    static let sealedState: UInt8 = 1
    /// More than any volume holds: they have at most 1 TiB.
    private static let bytesMax: UInt64 = 1 << 48

    var isSealed: Bool { state == Self.sealedState }

    /// nil for bytes that are no record, or one whose counts no volume can reach.
    init?(bytes: UnsafeRawBufferPointer) {
        self.init(at: 0, of: bytes)
        let isPossible = max(livePages, writtenPages) <= UInt32.max && max(liveBytes, writtenBytes) < Self.bytesMax
        guard bytes.count == Self.byteCount, state <= Self.sealedState, isPossible else { return nil }
    }
}
