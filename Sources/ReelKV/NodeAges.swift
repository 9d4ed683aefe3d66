package import KVCodec
import LMDB

/// When the nodes of a store were last used. A use counts where it ended, but the nodes before it were used as well: so a node is as
/// young as the youngest that hangs on it.
package struct NodeAges {
    private struct Entry {
        var hash: Digest
        var parent: Digest
        var firstToken: Int
        var bytes: Int
    }

    private var entries: [Entry] = []
    private var lastUsed: [Digest: Int64] = [:]

    package init() {}

    /// - Parameters:
    ///   - firstToken: the first token that it holds itself; that of its parent lies before.
    ///   - seconds: Unix time when it was made.
    package mutating func add(_ hash: Digest, parent: Digest, firstToken: Int, bytes: Int, createdAt seconds: Int64) {
        entries.append(Entry(hash: hash, parent: parent, firstToken: firstToken, bytes: bytes))
        lastUsed[hash] = seconds
    }

    /// Notes when a node was used itself; one without such a note was made, and no more.
    package mutating func addUse(of hash: Digest, at seconds: Int64) {
        if let known = lastUsed[hash] { lastUsed[hash] = max(known, seconds) }
    }

    /// Pages and bytes by the time since they were last used.
    package mutating func histogram(now: Int64) -> [StoreStatistics.AgeClass] {
        var classes = StoreStatistics.AgeClass.all
        // children begin at a later token than their parents, so they have heard of all that hangs on them
        for entry in entries.sorted(by: { $0.firstToken > $1.firstToken }) {
            let used = lastUsed[entry.hash] ?? now
            if let known = lastUsed[entry.parent] { lastUsed[entry.parent] = max(known, used) }
            let age = now.subtractingReportingOverflow(used).partialValue
            let place = classes.firstIndex { age < $0.secondsBelow ?? .max } ?? classes.count - 1
            classes[place].pages += 1
            classes[place].bytes += entry.bytes
        }
        return classes
    }
}

extension NodeAges {
    mutating func add(_ hash: Digest, _ node: NodeView) {
        let bytes = (0..<node.encodingCount).reduce(0) { $0 + Int(node.encoding($1).imageBytes) }
        add(
            hash, parent: node.record.parent, firstToken: node.record.firstOwnToken, bytes: bytes,
            createdAt: node.record.createdSeconds)
    }

    mutating func addUses(_ index: Index, in transaction: borrowing ReadTransaction) throws {
        try index.usages.forEachRaw(in: .all, in: transaction) { key, bytes in
            guard let usage = UsageRecord(at: 0, of: bytes) else {
                throw StoreError(.damaged, "the record of a node's use is damaged; run `reelkv verify`")
            }
            addUse(of: try DigestKey.decode(key), at: usage.lastUsedSeconds)
            return .continue
        }
    }
}
