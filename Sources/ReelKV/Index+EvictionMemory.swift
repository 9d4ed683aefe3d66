import LMDB

// What the policies remember beyond the records, as far as it is kept.

extension Index {
    private static let returnsKey = "returns"
    private static let frequenciesKey = "frequencies"

    func loadMemory(in transaction: borrowing some Transaction & ~Copyable) throws {
        _ = try stores.withValue(Self.returnsKey, in: transaction) { evictionMemory.load(tables: $0) }
        _ = try stores.withValue(Self.frequenciesKey, in: transaction) { evictionMemory.load(frequencies: $0) }
        try synchronizeMemory(in: transaction)
        evictionMemory.beginSaving(at: try counters(in: transaction).accesses)
    }

    func synchronizeMemory(in transaction: borrowing some Transaction & ~Copyable) throws {
        evictionMemory.synchronize(
            // a policy that is not known is reported where it would be followed
            policy: EvictionPolicy(rawValue: try settings(in: transaction).policy) ?? .lru,
            accesses: try counters(in: transaction).accesses, nodes: try nodes.count(in: transaction))
    }

    func saveMemory(ifDue isDue: Bool, in transaction: borrowing WriteTransaction) throws {
        guard let saved = evictionMemory.saved(ifDue: isDue) else { return }
        if let tables = saved.tables { try stores.put(Self.returnsKey, tables, in: transaction) }
        if let frequencies = saved.frequencies { try stores.put(Self.frequenciesKey, frequencies, in: transaction) }
    }
}
