import KVCodec
import LMDB

extension Store {
    /// Nodes evicted by one transaction: other writers wait for it.
    private static let sliceMax = 256
    /// How often writes look for pages that were unused for too long.
    private static let expirySeconds: Int64 = 10

    /// Evicts pages until the store's files take at most so many bytes, or nothing more may be evicted. The files shrink as far as
    /// compaction gives their space back.
    ///
    /// - Parameters:
    ///   - bytes: what the store may take; nil for what its settings allow.
    ///   - policy: which pages go first, this time; nil for the store's own.
    /// - Throws: `StoreError` with the codes `readOnly`, `noSpace`, `inputOutput`.
    public func evict(to bytes: Int? = nil, policy: EvictionPolicy? = nil) throws -> EvictionReport {
        let settings = try settings()
        var report = try dropExpired(settings)
        let excess = try excess(over: bytes, settings)
        if excess > 0 { report.add(try evict(fileBytes: excess, policy: policy, isDryRun: false)) }
        while let bytes = bytes ?? settings.quotaBytes, try Platform.occupiedBytes(folder) > bytes {
            let step = try compactStep(bytesMax: 8 << 20)
            if step.copied == 0, step.freed == 0 { break }
        }
        return report
    }

    /// What `evict` would evict, without doing it.
    public func evictionPlan(to bytes: Int? = nil, policy: EvictionPolicy? = nil) throws -> EvictionReport {
        try checkWritable()
        let excess = try excess(over: bytes, try settings())
        return excess > 0 ? try evict(fileBytes: excess, policy: policy, isDryRun: true) : EvictionReport()
    }

    /// Bytes of page images that must go for the store to take no more than `bytes`, once their space has come back.
    private func excess(over bytes: Int?, _ settings: StoreSettings) throws -> Int {
        guard bytes ?? 0 >= 0 else { throw StoreError(.invalidArgument, "a store cannot take \(bytes ?? 0) bytes") }
        let space = try measure(settings)
        return space.overhead + space.live - (bytes ?? space.limit)
    }

    /// Evicts in one transaction, by any policy. A dry run undoes it.
    private func evict(fileBytes: Int, policy: EvictionPolicy?, isDryRun: Bool) throws -> EvictionReport {
        if policy == nil, !isDryRun { return try evict(ofTenant: nil) { $0.fileBytes < fileBytes } }
        do {
            let report = try evicting { leased, transaction in
                let own = try index.settings(in: transaction)
                if let policy { try index.rankAll(by: policy, in: transaction) }
                var report = EvictionReport()
                while report.fileBytes < fileBytes,
                    let leaf = try index.victim(ofTenant: nil, excluding: leased, in: transaction)
                {
                    report.add(try index.evict(leaf, reason: isDryRun ? .trial : .room, in: transaction))
                }
                if isDryRun { throw Undone(report: report) }
                if policy != nil, let policy = EvictionPolicy(rawValue: own.policy) {
                    try index.rankAll(by: policy, in: transaction)
                }
                return report
            }
            try removeDeadVolumes()
            return report
        } catch let undone as Undone {
            return undone.report
        }
    }

    private struct Undone: Error {
        var report: EvictionReport
    }

    /// Evicts what the policy values least, page by page, as long as `isWanted` says so of what has gone and something may go.
    ///
    /// - Parameter tenant: whose pages; nil for all.
    package func evict(
        ofTenant tenant: UInt32? = nil, while isWanted: (EvictionReport) -> Bool
    ) throws -> EvictionReport {
        var report = EvictionReport()
        var hasUnpinned = false
        while isWanted(report) {
            let before = report
            report = try evicting { leased, transaction in
                var report = before
                while isWanted(report), report.pages - before.pages < Self.sliceMax,
                    let leaf = try index.victim(ofTenant: tenant, excluding: leased, in: transaction)
                {
                    report.add(try index.evict(leaf, reason: .room, in: transaction))
                }
                return report
            }
            if report.pages > before.pages { continue }
            // what writers that died have left is worth less than anything
            guard !hasUnpinned, try releaseAbandoned() > 0 else { break }
            hasUnpinned = true
        }
        if report.pages > 0 { try removeDeadVolumes() }
        return report
    }

    /// Like `evict`, but all that is wanted or nothing, in one transaction.
    ///
    /// - Returns: nil when not enough may go.
    func evictEnough(
        ofTenant tenant: UInt32? = nil, while isWanted: (EvictionReport) -> Bool
    ) throws -> EvictionReport? {
        struct NotEnough: Error {}
        while true {
            do {
                let report = try evicting { leased, transaction in
                    var report = EvictionReport()
                    while isWanted(report) {
                        guard let leaf = try index.victim(ofTenant: tenant, excluding: leased, in: transaction) else {
                            throw NotEnough()
                        }
                        report.add(try index.evict(leaf, reason: .room, in: transaction))
                    }
                    return report
                }
                if report.pages > 0 { try removeDeadVolumes() }
                return report
            } catch is NotEnough {
                // what writers that died have left is worth less than anything
                guard try releaseAbandoned() > 0 else { return nil }
            }
        }
    }

    /// Drops pages, and names, that were unused for longer than the settings allow.
    ///
    /// - Parameter isHurried: whether a write waits for it: it then looks only now and then.
    func dropExpired(_ settings: StoreSettings, isHurried: Bool = false) throws -> EvictionReport {
        var report = EvictionReport()
        guard let seconds = settings.unusedSecondsMax else { return report }
        let now = Platform.uptimeSeconds()
        let isDue = core.expiryLooked.withLock { looked in
            guard !isHurried || now >= looked + Self.expirySeconds else { return false }
            looked = now
            return true
        }
        guard isDue else { return report }
        let since = Platform.unixSeconds(ago: Int64(clamping: seconds))
        guard try !read({ try index.leaves(unusedSince: since, atMost: 1, excluding: [], in: $0) }).isEmpty else { return report }
        while true {
            let slice = try evicting { leased, transaction in
                var slice = EvictionReport()
                while slice.pages < Self.sliceMax {
                    // with each leaf that goes its parent may become one
                    let expired = try index.leaves(
                        unusedSince: since, atMost: Self.sliceMax, excluding: leased, in: transaction)
                    for leaf in expired { slice.add(try index.evict(leaf, reason: .age, in: transaction)) }
                    if expired.isEmpty { break }
                }
                return slice
            }
            report.add(slice)
            if slice.pages == 0 { break }
        }
        if report.pages > 0 { try removeDeadVolumes() }
        return report
    }

    /// Runs a write transaction that evicts, with the nodes that it must leave alone: those that readers hold, whatever their process.
    private func evicting<R>(
        _ body: (_ leased: Set<Digest>, borrowing WriteTransaction) throws -> R
    ) throws -> R {
        try leaseTable.excludingLeased { leased in try writeWithUses { try body(leased, $0) } }
    }

    /// Lets what writers left unfinished that have died be evicted.
    ///
    /// - Returns: how many unfinished sequences there were.
    private func releaseAbandoned() throws -> Int {
        try write { transaction in
            let abandoned = try index.allBuilding(in: transaction).filter { !$0.head.record.isWriterAlive }
            for (key, _) in abandoned { try index.moveBuilding(key, to: nil, isKeeping: true, in: transaction) }
            return abandoned.count
        }
    }
}
