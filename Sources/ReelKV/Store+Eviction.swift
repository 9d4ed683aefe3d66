import KVCodec
import LMDB

extension Store {
    /// Nodes evicted by one transaction: other writers wait for it.
    private static let sliceMax = 256

    /// Evicts what the policy values least, until page images of so many bytes are gone or nothing more may be.
    ///
    /// - Parameter tenant: whose pages; nil for all.
    func evict(bytes: Int, ofTenant tenant: UInt32?) throws -> EvictionReport {
        var report = EvictionReport()
        var hasUnpinned = false
        while report.bytes < bytes {
            let leased = try leasedTips()
            let slice = try writeWithUses { transaction in
                var slice = EvictionReport()
                while report.bytes + slice.bytes < bytes, slice.pages < Self.sliceMax,
                    let leaf = try index.victim(ofTenant: tenant, excluding: leased, in: transaction)
                {
                    slice.add(try index.evict(leaf, reason: .room, in: transaction))
                }
                return slice
            }
            report.add(slice)
            if slice.pages > 0 { continue }
            // what writers that died have left is worth less than anything
            guard !hasUnpinned, try releaseAbandoned() > 0 else { break }
            hasUnpinned = true
        }
        if report.pages > 0 { try removeDeadVolumes() }
        return report
    }

    /// Drops pages, and names, that were unused for longer than the settings allow.
    func dropExpired(_ settings: StoreSettings) throws -> EvictionReport {
        var report = EvictionReport()
        guard let seconds = settings.unusedSecondsMax else { return report }
        let since = Platform.unixSeconds() - Int64(clamping: seconds)
        while true {
            let leased = try leasedTips()
            let slice = try writeWithUses { transaction in
                var slice = EvictionReport()
                let expired = try index.leaves(
                    unusedSince: since, atMost: Self.sliceMax, excluding: leased, in: transaction)
                for leaf in expired { slice.add(try index.evict(leaf, reason: .age, in: transaction)) }
                return slice
            }
            report.add(slice)
            if slice.pages == 0 { break }
        }
        if report.pages > 0 { try removeDeadVolumes() }
        return report
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

extension Store {
    /// The nodes that readers hold, whatever the process.
    func leasedTips() throws -> Set<Digest> { [] }

    func compactStep(bytesMax: Int) throws -> (copied: Int, freed: Int) { (0, 0) }
}

extension VolumeSet {
    var sealBytes: Int {
        get { bytesMax }
        set {}
    }
}
