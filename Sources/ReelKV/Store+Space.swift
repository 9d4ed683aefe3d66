import KVCodec
import LMDB

// Keeps a store within its bounds. A write that would take it out of them first makes room: it evicts what the policy values least,
// and has compaction give back the space. What it cannot make room for it refuses.
//
// Bounded stores append one batch at a time, whichever process it comes from: so what was measured still holds when it is written,
// and the quota is a promise and not a target.

/// What a store takes, and what it may take, in bytes.
struct SpaceMeasure {
    /// Of every file.
    var occupied: Int
    /// Of the index, of lock files, and of what a volume needs however little is in it: what no eviction gives back.
    var overhead: Int
    /// Of the page images that nodes refer to, as they lie in the files.
    var live: Int
    /// That all files may have together.
    var limit: Int

    /// Of the page images that nothing refers to.
    var dead: Int { max(0, occupied - overhead - live) }
}

extension Store {
    static let spaceLockName = "space.lock"
    /// The share of dead bytes from which on a volume is emptied: at least as much comes back as is copied, so that a quota at most
    /// doubles what is written. Where no volume has it, more is evicted, until one has.
    private static let deadShareMin = 0.5
    /// Volumes' worth of room that writes work ahead for.
    private static let volumesAhead = 3
    /// The same where nothing else is left to do.
    private static let deadShareLast = 0.05
    /// Bytes copied by compaction after each run of pages demoted.
    private static let demotionStepBytes = 16 << 20
    /// The share of dead bytes from which on a volume is emptied also where there is room enough.
    private static let deadShareInPassing = 0.6

    /// Appends a tenant's page images to the volumes, within the store's and the tenant's bounds. The caller settles them.
    ///
    /// - Parameters:
    ///   - replacesOthers: whether some take the place of images of the same pages.
    ///   - indexBytes: what goes into the index beside the images' nodes: engine state.
    /// - Throws: `StoreError.quotaExceeded` when not enough may be evicted; nothing is appended then, and nothing evicted for it.
    func append(
        _ images: [EncodedPage], ofTenant tenant: UInt32, named name: String, indexBytes: Int, replacesOthers: Bool
    ) throws -> [VolumeSet.Location] {
        let (settings, tenantQuota) = try read { transaction in
            (
                try StoreSettings(index.settings(in: transaction)),
                Int(clamping: try index.tenantRecord(named: name, in: transaction)?.quotaBytes ?? 0)
            )
        }
        let imageBytes = images.reduce(0) { $0 + $1.count }
        guard !images.isEmpty || indexBytes > 0, settings.isBounded || tenantQuota > 0 else {
            _ = try dropExpired(settings, isHurried: true)
            return try StoreError.translating { try volumes.append(images, replacesOthers: replacesOthers) }
        }
        let turn = try FileLock(waitingFor: folder + "/" + Self.spaceLockName)
        defer { withExtendedLifetime(turn) {} }
        do {
            if tenantQuota > 0 { try makeRoom(for: imageBytes, ofTenant: tenant, named: name, quota: tenantQuota) }
            volumes.sealBytes = settings.sealBytes(of: volumes.bytesMax)
            let fileBytes = images.reduce(0) { $0 + Volume.fileBytes(of: $1.count) }
            // a node and its entries of the index take some pages of 4 KiB, and copies of those that lead there
            _ = try makeRoom(for: fileBytes + images.count * 4096 + indexBytes / 8 * 9, settings)
        } catch let error as StoreError where error.code == .quotaExceeded {
            try? write { try index.updateCounters(in: $0) { $0.refusedBytes += UInt64(imageBytes) } }
            throw error
        }
        return try StoreError.translating { try volumes.append(images, replacesOthers: replacesOthers) }
    }

    /// Brings the store within its bounds, where a setting has just made them narrower or pages have expired.
    ///
    /// - Throws: `StoreError.quotaExceeded` when not enough may be evicted; nothing is then.
    public func makeRoom() throws -> EvictionReport {
        try checkWritable()
        let settings = try settings()
        guard settings.isBounded else { return try dropExpired(settings) }
        let turn = try FileLock(waitingFor: folder + "/" + Self.spaceLockName)
        defer { withExtendedLifetime(turn) {} }
        return try makeRoom(for: 0, settings)
    }

    /// A little compaction for what was just written, where most of what lies in some volume is dead. A write pays for it by its size,
    /// and never fails for it.
    func compactInPassing(bytes: Int) {
        _ = try? compactStep(bytesMax: bytes, deadShareMin: Self.deadShareInPassing)
    }

    // MARK: - The store's bounds

    private func makeRoom(for bytes: Int, _ settings: StoreSettings) throws -> EvictionReport {
        var report = try dropExpired(settings, isHurried: bytes > 0)
        var space = try measure(settings)
        // What cannot be made to fit is refused before anything goes for it.
        if bytes + space.overhead > space.limit, try shrinkIndex(space) { space = try measure(settings) }
        guard bytes == 0 || bytes + space.overhead <= space.limit else { throw full(space, bytes, settings) }
        guard try shed(space.live + space.overhead + bytes - space.limit, settings, into: &report) else {
            throw full(space, bytes, settings)
        }
        // Emptying a volume that is half dead gives back as much as is copied.
        let stepBytes = max(bytes, 1 << 20)
        space = try measure(settings)
        var isBehind = false
        while space.occupied + bytes > space.limit {
            guard try giveBack(space, for: bytes, stepBytes: stepBytes, settings, into: &report) else {
                throw full(space, bytes, settings)
            }
            space = try measure(settings)
            isBehind = true
        }
        let ahead = min(Self.volumesAhead * volumes.sealBytes, space.limit / 10)
        // A write larger than that gains nothing by it, and one that had to wait has done its share.
        if !isBehind, (1...max(1, ahead)).contains(bytes), space.occupied + bytes > space.limit - ahead {
            try workAhead(space, for: bytes, stepBytes: stepBytes, settings, into: &report)
        }
        return report
    }

    /// A little of what will be needed, in proportion to what is written, so that no single write has to wait for all of it.
    private func workAhead(
        _ space: SpaceMeasure, for bytes: Int, stepBytes: Int, _ settings: StoreSettings, into report: inout EvictionReport
    ) throws {
        let step = try compactStep(bytesMax: stepBytes, deadShareMin: Self.deadShareMin)
        let isHalfDead = space.live + bytes <= (space.limit - space.overhead) / 2
        if step.copied == 0, step.freed == 0, !isHalfDead { _ = try shed(bytes, settings, into: &report) }
    }

    /// Brings the files towards taking less: empties the volume that is worth it, or lets go of more pages, so that one will be.
    /// Copies for little gain only where nothing else is left.
    ///
    /// - Returns: whether that did anything.
    private func giveBack(
        _ space: SpaceMeasure, for bytes: Int, stepBytes: Int, _ settings: StoreSettings, into report: inout EvictionReport
    ) throws -> Bool {
        if try shrinkIndex(space) { return true }
        let step = try compactStep(bytesMax: stepBytes, deadShareMin: Self.deadShareMin)
        if step.copied > 0 || step.freed > 0 { return true }
        // Where half of all is dead, some volume should have been worth it: the rest is in other hands, and no eviction frees it.
        let isHalfDead = space.live + bytes <= (space.limit - space.overhead) / 2
        let before = report.pages
        if !isHalfDead, try shed(space.occupied + bytes - space.limit, settings, into: &report), report.pages > before {
            return true
        }
        let last = try compactStep(bytesMax: stepBytes, deadShareMin: Self.deadShareLast, looksAtFiles: true)
        return last.copied > 0 || last.freed > 0
    }

    /// Shrinks the index where that gives back enough to be worth the writing.
    private func shrinkIndex(_ space: SpaceMeasure) throws -> Bool {
        let (before, after) = try shrinkIndex(ifGaining: max(1 << 20, min(space.limit, 1 << 40) / 32))
        return after < before
    }

    /// Lets go of page images that take so many bytes: demotes what is cold, if the settings say so, and then evicts what the policy
    /// values least.
    ///
    /// - Returns: false when not enough may go; nothing is evicted then.
    private func shed(_ bytes: Int, _ settings: StoreSettings, into report: inout EvictionReport) throws -> Bool {
        guard bytes > 0 else { return true }
        var saved = 0
        if let demotion = settings.demotion {
            while saved < bytes, let run = try nextColdRun(demotion) {
                let gained = try demote(run, to: demotion.profile).bytesSaved
                if gained <= 0 { core.demotionScan.withLock { $0.fruitless.formUnion(run) } }
                saved += gained
                // the images it replaces are dead now: what it adds must not pile up
                _ = try compactStep(bytesMax: Self.demotionStepBytes, deadShareMin: Self.deadShareMin)
            }
        }
        guard saved < bytes else { return true }
        guard let evicted = try evictEnough(while: { $0.fileBytes < bytes - saved }) else { return saved > 0 }
        report.add(evicted)
        return true
    }

    private func full(_ space: SpaceMeasure, _ bytes: Int, _ settings: StoreSettings) -> StoreError {
        let bound = settings.quotaBytes.flatMap { space.limit == Self.limit(of: $0) ? "the quota of \($0) bytes" : nil }
        return StoreError(
            .quotaExceeded,
            "\(Self.exceeding(bytes)) \(bound ?? "the free space to keep"): the store takes \(space.occupied), and what is left in it is pinned, leased or being written; raise the bound, unpin or remove something"
        )
    }

    private static func exceeding(_ bytes: Int) -> String {
        bytes > 0 ? "\(bytes) bytes more would exceed" : "what is stored exceeds"
    }

    func measure(_ settings: StoreSettings) throws -> SpaceMeasure {
        let occupied = try Platform.occupiedBytes(folder)
        let volumeBytes = try Platform.occupiedBytes(folder + "/" + VolumeSet.folderName)
        let records = try read { try index.allVolumes(in: $0) }
        let live = records.reduce(0) { $0 + Volume.fileBytes(of: Int($1.record.liveBytes), pages: Int($1.record.livePages)) }
        var limit = Int.max / 2
        if let quota = settings.quotaBytes { limit = Self.limit(of: quota) }
        if let floor = settings.freeBytesMin {
            limit = min(limit, occupied + min(try Platform.freeBytes(folder), 1 << 60) - min(floor, 1 << 60))
        }
        return SpaceMeasure(
            occupied: occupied, overhead: occupied - volumeBytes + records.count * Volume.emptyBytes, live: live, limit: limit)
    }

    /// What a quota leaves for the files when room is made: the index grows a little with the write that follows.
    private static func limit(of quota: Int) -> Int { quota - min(1 << 20, quota / 16) }

    /// Bytes of every file of the store, on the file system.
    package func occupiedBytes() throws -> Int { try Platform.occupiedBytes(folder) }

    /// Bytes of page images stored for callers, and copied by compaction, since the store was made.
    package func writeCounters() throws -> (appended: Int, copied: Int) {
        let counters = try read { try index.counters(in: $0) }
        return (Int(counters.appendedBytes), Int(counters.copiedBytes))
    }

    package func appendedBytes() throws -> Int { try writeCounters().appended }

    // MARK: - A tenant's bound

    @discardableResult
    private func makeRoom(
        for bytes: Int, ofTenant tenant: UInt32, named name: String, quota: Int
    ) throws -> EvictionReport {
        let live = try read { Int(try index.account(of: tenant, in: $0).liveBytes) }
        let excess = live + bytes - quota
        guard excess > 0 else { return EvictionReport() }
        guard bytes <= quota, let report = try evictEnough(ofTenant: tenant, while: { $0.bytes < excess }) else {
            throw StoreError(
                .quotaExceeded,
                "\(Self.exceeding(bytes)) the quota of tenant '\(name)' of \(quota) bytes: it has \(live) stored, and too little of it may be evicted, as the rest is pinned, leased or being written; raise the quota, unpin or remove something"
            )
        }
        return report
    }

    /// Brings a tenant within its own bound, where that has just been made narrower.
    ///
    /// - Throws: `StoreError` with the codes `notFound`, `readOnly`, and `quotaExceeded` when not enough may be evicted; nothing is
    ///   then.
    public func makeRoom(ofTenant name: String) throws -> EvictionReport {
        try checkWritable()
        guard let tenant = try storedTenant(named: name) else { throw Self.noTenant(name) }
        guard let quota = try quota(ofTenant: name) else { return EvictionReport() }
        let turn = try FileLock(waitingFor: folder + "/" + Self.spaceLockName)
        defer { withExtendedLifetime(turn) {} }
        return try makeRoom(for: 0, ofTenant: tenant.id, named: name, quota: quota)
    }
}

extension StoreSettings {
    var isBounded: Bool { quotaBytes != nil || freeBytesMin != nil }

    /// Bytes at which a volume is sealed: small enough for the quota to give space back in steps.
    func sealBytes(of bytesMax: Int) -> Int {
        guard let quotaBytes else { return bytesMax }
        return min(bytesMax, max(1 << 20, quotaBytes / 32))
    }
}

extension Volume {
    /// Bytes that a page image takes in a volume's file at most: it lies on pages of its own, and has an entry that leads there.
    static func fileBytes(of imageBytes: Int) -> Int { (imageBytes + 16 + 4095) / 4096 * 4096 + 64 }

    /// Bytes that so many page images take, when only their sum is known: half a page more than they have, each.
    static func fileBytes(of imageBytes: Int, pages: Int) -> Int { imageBytes + pages * (2048 + 64) }

    /// Bytes of a volume and its lock file before anything is in it.
    static let emptyBytes = 24 << 10
}
