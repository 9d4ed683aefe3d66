import LMDB

/// The store-wide counters: what was done since the store was created.
extension Index {
    static let countersKey = "counters"

    /// All zero where nothing was counted yet.
    func counters(in transaction: borrowing some Transaction & ~Copyable) throws -> CounterRecord {
        let found = try stores.withValue(Self.countersKey, in: transaction) { CounterRecord(at: 0, of: $0) }
        return (found ?? nil)
            ?? CounterRecord(
                appendedBytes: 0, copiedBytes: 0, demotedBytes: 0, evictedPages: 0, evictedBytes: 0, compactedVolumes: 0)
    }

    func updateCounters(
        in transaction: borrowing WriteTransaction, _ change: (inout CounterRecord) -> Void
    ) throws {
        var counters = try counters(in: transaction)
        change(&counters)
        var bytes: [UInt8] = []
        bytes.append(counters)
        try stores.put(Self.countersKey, bytes, in: transaction)
    }

    func count(appendedBytes: Int, in transaction: borrowing WriteTransaction) throws {
        try updateCounters(in: transaction) { $0.appendedBytes &+= UInt64(appendedBytes) }
    }

    func count(copiedBytes: Int, in transaction: borrowing WriteTransaction) throws {
        try updateCounters(in: transaction) { $0.copiedBytes &+= UInt64(copiedBytes) }
    }
}
