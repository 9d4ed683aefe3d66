import KVCodec
import LMDB

/// Changing where encodings lie, and dropping encodings of nodes that stay.
extension Index {
    /// Changes an encoding's place, if it still lies at `old`. Live bytes and pages move with it.
    ///
    /// - Parameter keyEpoch: of the data key that it is sealed with there; nil for as it was.
    /// - Returns: whether it did; false when the node was deleted, or stored anew elsewhere, since it was looked up.
    func relocate(
        _ hash: Digest, from old: VolumeSet.Location, to new: VolumeSet.Location, keyEpoch: UInt32? = nil,
        in transaction: borrowing WriteTransaction
    ) throws -> Bool {
        guard var node = try node(hash, in: transaction),
            let moved = node.encodings.firstIndex(where: { $0.lies(at: old) })
        else { return false }
        try releaseEncoding(node.encodings[moved], of: node.record.tenantId, in: transaction)
        node.encodings[moved].volumeId = new.volume
        node.encodings[moved].pageId = new.page
        if let keyEpoch { node.encodings[moved].keyEpoch = keyEpoch }
        try account(for: node.encodings[moved], of: node.record.tenantId, in: transaction)
        try putNode(node, hash: hash, in: transaction)
        return true
    }

    /// Drops an encoding that is damaged or not wanted, if it still lies at `place`. A node's only encoding leaves an entry behind that
    /// lies nowhere, because others may refer to the node: it counts as absent, and is replaced when the page is stored anew.
    ///
    /// - Returns: whether it was there.
    @discardableResult
    func dropEncoding(
        _ hash: Digest, at place: VolumeSet.Location, in transaction: borrowing WriteTransaction
    ) throws -> Bool {
        guard var node = try node(hash, in: transaction),
            let dropped = node.encodings.firstIndex(where: { $0.lies(at: place) })
        else { return false }
        try releaseEncoding(node.encodings[dropped], of: node.record.tenantId, in: transaction)
        if node.encodings.count > 1 {
            node.encodings.remove(at: dropped)
        } else {
            node.encodings[dropped].lose()
        }
        try putNode(node, hash: hash, in: transaction)
        return true
    }

    /// Every encoding in a volume. Reads all nodes: only for volumes that cannot tell it themselves.
    func encodings(
        inVolume id: UInt64, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [(hash: Digest, encoding: EncodingRecord)] {
        var found: [(hash: Digest, encoding: EncodingRecord)] = []
        try nodes.forEach(in: transaction) { key, value in
            let node = try NodeView(value)
            for encoding in (0..<node.encodingCount).map({ node.encoding($0) }) where encoding.volumeId == id {
                found.append((try DigestKey.decode(key), encoding))
            }
            return .continue
        }
        return found
    }

    /// Encodings that nobody needs, because another one of the same node is better in no less than everything.
    func dominatedEncodings(
        in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [(hash: Digest, encoding: EncodingRecord)] {
        var found: [(hash: Digest, encoding: EncodingRecord)] = []
        try nodes.forEach(in: transaction) { key, value in
            let node = try NodeView(value)
            guard node.encodingCount > 1 else { return .continue }
            let dominated = (0..<node.encodingCount).map { node.encoding($0) }.dominated
            found += try dominated.map { (try DigestKey.decode(key), $0) }
            return .continue
        }
        return found
    }

    /// Drops a node's encodings that are dominated by now.
    ///
    /// - Returns: how many.
    func dropDominated(_ hash: Digest, in transaction: borrowing WriteTransaction) throws -> Int {
        guard let dominated = try node(hash, in: transaction)?.encodings.dominated else { return 0 }
        for encoding in dominated { try dropEncoding(hash, at: encoding.location, in: transaction) }
        return dominated.count
    }
}

extension EncodingRecord {
    var location: VolumeSet.Location { VolumeSet.Location(volume: volumeId, page: pageId) }

    func lies(at place: VolumeSet.Location) -> Bool { volumeId == place.volume && pageId == place.page }

    /// Its image is gone for good, and it lies in no volume: volume ids start at 1.
    var isLost: Bool { volumeId == 0 }

    mutating func lose() {
        volumeId = 0
        pageId = 0
        imageBytes = 0
        isQuarantined = true
    }

    /// Whether whoever would take `other` is served as well by this one. Not where either was damaged.
    fileprivate func dominates(_ other: EncodingRecord) -> Bool {
        !isQuarantined && !other.isQuarantined && keyError <= other.keyError && valueError <= other.valueError
            && completeFrom <= other.completeFrom && imageBytes <= other.imageBytes && (!isInherited || other.isInherited)
    }
}

extension [EncodingRecord] {
    /// Those that another one dominates; of two that dominate each other, the later.
    fileprivate var dominated: [EncodingRecord] {
        indices.filter { index in
            indices.contains { other in
                other != index && self[other].dominates(self[index])
                    && (other < index || !self[index].dominates(self[other]))
            }
        }.map { self[$0] }
    }
}
