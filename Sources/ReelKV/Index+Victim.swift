import KVCodec
import LMDB

// Which leaf goes first.

extension Index {
    /// The leaf that goes first, of one tenant or of all, as the policy ranks them.
    ///
    /// - Parameter excluding: nodes that are leased.
    /// - Complexity: a few look-ups for each tenant; with `adaptive` some thirty.
    func victim(
        ofTenant tenant: UInt32?, excluding leased: Set<Digest>, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> LeafKey? {
        if try evictionPolicy(in: transaction) == .adaptive {
            try synchronizeMemory(in: transaction)
            var search = VictimSearch(
                index: self, now: try counters(in: transaction).accesses, outlook: evictionMemory.outlook(), leased: leased)
            try forEachTenant(tenant, in: transaction) { try search.run(tenant: $0, in: transaction) }
            return search.victim
        }
        var best: LeafKey?
        try forEachTenant(tenant, in: transaction) { tenant in
            let lowest = LeafKey(tenant: tenant, rank: 0, hash: .zero)
            if let leaf = try firstLeaf(from: lowest, excluding: leased, in: transaction), leaf.rank < best?.rank ?? .max {
                best = leaf
            }
        }
        return best
    }

    /// The tenant, or all that have leaves.
    private func forEachTenant(
        _ tenant: UInt32?, in transaction: borrowing some Transaction & ~Copyable, _ body: (UInt32) throws -> Void
    ) throws {
        if let tenant { return try body(tenant) }
        var next: UInt32? = 0
        while let tenant = next, let first = try leaf(atOrAfter: Self.accountKey(tenant), in: transaction) {
            try body(first.tenant)
            next = first.tenant == .max ? nil : first.tenant + 1
        }
    }

    /// The tenant's first leaf that is not leased, at a place in the order of eviction or after it.
    fileprivate func firstLeaf(
        from lowest: LeafKey, excluding leased: Set<Digest>, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> LeafKey? {
        var key = lowest.bytes
        while let leaf = try leaf(atOrAfter: key, in: transaction), leaf.tenant == lowest.tenant {
            if !leased.contains(leaf.hash) { return leaf }
            key = leaf.bytes + [0]
        }
        return nil
    }

    private func leaf(
        atOrAfter key: [UInt8], in transaction: borrowing some Transaction & ~Copyable
    ) throws -> LeafKey? {
        try key.withUnsafeBytes { key in
            try leaves.withFirstEntry(atOrAfter: key, in: transaction) { found, _ in try LeafKey(bytes: found) }
        }
    }
}

/// The search of the policy `adaptive`: among the oldest leaves of each class and bin of age, which all others of it outlast, the one that
/// is worth least; or the one unused for longest, where no other is worth clearly less than that.
private struct VictimSearch {
    let index: Index
    /// The store's count of accesses.
    let now: UInt64
    let outlook: Outlook
    let leased: Set<Digest>
    private var least: (leaf: LeafKey, worth: Double)?
    private var oldest: (leaf: LeafKey, worth: Double)?

    init(index: Index, now: UInt64, outlook: Outlook, leased: Set<Digest>) {
        self.index = index
        self.now = now
        self.outlook = outlook
        self.leased = leased
    }

    var victim: LeafKey? {
        guard let least, let oldest else { return nil }
        return least.worth < outlook.keeping * oldest.worth ? least.leaf : oldest.leaf
    }

    mutating func run(tenant: UInt32, in transaction: borrowing some Transaction & ~Copyable) throws {
        var from = LeafKey(tenant: tenant, rank: 0, hash: .zero)
        var reuseClass: UInt8?
        while let leaf = try index.firstLeaf(from: from, excluding: leased, in: transaction) {
            let found = EvictionOrder.reuseClass(of: leaf.rank)
            guard found < ReturnClass.count else { return }
            let last = EvictionOrder.lastAccess(of: leaf.rank)
            let bin = AgeBin.of(now - min(now, last))
            consider(leaf, found, bin, isFirst: found != reuseClass)
            reuseClass = found
            if bin > 0, outlook.leastYounger(found, than: bin) < least?.worth ?? .infinity {
                // on to the oldest leaf of a younger bin
                let since = max(last + 1, now + 1 - min(now, AgeBin.youngest(of: bin)))
                from.rank = EvictionOrder.rank(found, usedSince: since)
            } else {
                from.rank = EvictionOrder.rank(found + 1, usedSince: 0)
            }
        }
    }

    private mutating func consider(_ leaf: LeafKey, _ reuseClass: UInt8, _ bin: Int, isFirst: Bool) {
        let worth = outlook.worth(reuseClass, bin: bin)
        if worth < least?.worth ?? .infinity { least = (leaf, worth) }
        guard isFirst else { return }
        if let oldest, EvictionOrder.order(of: oldest.leaf.rank) <= EvictionOrder.order(of: leaf.rank) { return }
        oldest = (leaf, worth)
    }
}
