import KVCodec
import LMDB

/// What went to make room.
public struct EvictionReport: Hashable, Sendable {
    /// Pages and tail pieces.
    public var pages = 0
    /// Bytes of their page images.
    public var bytes = 0
    /// The videos and sessions that lost their last page so, and are gone.
    public var sequences: [SequenceName] = []
    /// Bytes that the images take in their volumes' files.
    var fileBytes = 0
}

extension Index {
    /// Removes a leaf, and the names whose last page it was. Its parent may then be a leaf.
    func evict(_ leaf: LeafKey, reason: EvictionReason, in transaction: borrowing WriteTransaction) throws -> EvictionReport {
        guard let node = try node(leaf.hash, in: transaction), node.record.children == 0, node.record.pins == 0 else {
            throw StoreError(.damaged, "node \(leaf.hash.hex.prefix(16)) is listed as a leaf and is none; run `reelkv verify`")
        }
        var report = EvictionReport()
        report.pages = 1
        report.bytes = node.encodings.reduce(0) { $0 + Int($1.imageBytes) }
        report.fileBytes = node.encodings.reduce(0) { $0 + Volume.fileBytes(of: Int($1.imageBytes)) }
        for (kind, key) in try finishedHeads(at: leaf.hash, in: transaction) {
            _ = try heads(of: kind).delete(key.bytes, in: transaction)
            _ = try tips.delete(TipKey(tip: leaf.hash, kind: kind, head: key).bytes, in: transaction)
            report.sequences.append(SequenceName(kind, key.name, tenant: try tenantName(key.tenant, in: transaction)))
        }
        if reason == .room { try noteEviction(leaf, in: transaction) }
        try removeNode(node, hash: leaf.hash, in: transaction)
        if try self.node(node.record.parent, in: transaction) != nil {
            try release(node.record.parent, \.children, isKeeping: true, in: transaction)
        }
        try updateCounters(in: transaction) { counters in
            switch reason {
            case .room, .trial:
                counters.evictedPages += 1
                counters.evictedBytes += UInt64(report.bytes)
            case .age:
                counters.expiredPages += 1
                counters.expiredBytes += UInt64(report.bytes)
            }
            counters.evictedHeads += UInt64(report.sequences.count)
        }
        return report
    }

    private func tenantName(_ id: UInt32, in transaction: borrowing some Transaction & ~Copyable) throws -> String {
        try allTenants(in: transaction).first { $0.id == id }?.name ?? "tenant \(id)"
    }

    /// Leaves that were last used before a time.
    func leaves(
        unusedSince seconds: Int64, atMost count: Int, excluding leased: Set<Digest>,
        in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [LeafKey] {
        var found: [LeafKey] = []
        try leaves.forEachRaw(in: .all, in: transaction) { key, value in
            guard value.count == 8 else { throw StoreError(.damaged, "a leaf's record is damaged; run `reelkv verify`") }
            let leaf = try LeafKey(bytes: key)
            if value.loadLittleEndian(at: 0, as: Int64.self) < seconds, !leased.contains(leaf.hash) { found.append(leaf) }
            return found.count < count ? .continue : .stop
        }
        return found
    }
}

enum EvictionReason {
    /// Room was needed.
    case room
    /// It had been unused for too long.
    case age
    /// It is only to be seen what would go; the transaction will be undone.
    case trial
}

extension EvictionReport {
    mutating func add(_ other: EvictionReport) {
        pages += other.pages
        bytes += other.bytes
        fileBytes += other.fileBytes
        sequences += other.sequences
    }
}
