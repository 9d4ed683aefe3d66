import LMDB

/// What a compaction is to do, and how hard it may work.
public struct CompactionOptions: Hashable, Sendable {
    /// Bytes of the store's folder over bytes of live pages at which it is done. Volumes that are within the ratio by themselves are
    /// left alone. At least 1.
    public var targetRatio = 1.1
    /// Bytes per second to copy at most; nil for as fast as it goes.
    public var bytesPerSecondMax: Int?
    /// Seconds since the last append after which an unfinished sequence, whose writer has ended, is deleted.
    public var unfinishedOlderThan: Int64 = 24 * 3600

    /// Whether volumes are emptied too that hold pages sealed with an earlier key of an encrypted tenant whose key was given.
    public var reseals = false

    public init() {}

    func check() throws {
        guard targetRatio >= 1, targetRatio.isFinite else {
            throw StoreError(
                .invalidArgument,
                "a folder has at least 1 byte for each live byte: a target ratio of \(targetRatio) is not possible")
        }
        guard bytesPerSecondMax ?? 1 > 0 else { throw StoreError(.invalidArgument, "a rate must be above 0 bytes per second") }
        guard unfinishedOlderThan >= 0 else { throw StoreError(.invalidArgument, "an age must be at least 0 seconds") }
    }
}

/// What a compaction would do now. Other processes may have changed that by the time it is done.
public struct CompactionPlan: Hashable, Sendable {
    /// A volume to be emptied.
    public struct Victim: Hashable, Sendable {
        public var id: UInt64
        public var fileName: String
        public var isSealed: Bool
        public var fileBytes: Int
        /// Bytes of page images to be copied.
        public var liveBytes: Int
        public var livePages: Int
        /// Bytes of page images that nothing refers to.
        public var deadBytes: Int
    }

    /// In the order in which they would be emptied.
    public var victims: [Victim] = []
    /// Bytes of every file in the store's folder.
    public var folderBytes = 0
    /// Bytes of all page images that encodings refer to.
    public var liveBytes = 0
    /// Sequences left unfinished that would be deleted first; what that makes dead is not in the figures.
    public var unfinished = 0

    public var bytesToCopy: Int { victims.reduce(0) { $0 + $1.liveBytes } }
    /// Bytes by which the folder would shrink, about.
    public var bytesToFree: Int { victims.reduce(0) { $0 + $1.bytesToFree } }
}

extension CompactionPlan.Victim {
    fileprivate var liveShare: Double { Double(liveBytes) / Double(max(1, liveBytes + deadBytes)) }
    fileprivate var bytesToFree: Int { max(0, fileBytes - liveBytes) }

    fileprivate init(id: UInt64, record: VolumeRecord, fileBytes: Int) {
        self.id = id
        self.fileBytes = fileBytes
        isSealed = record.isSealed
        fileName = VolumeSet.fileName(of: id)
        liveBytes = Int(record.liveBytes)
        livePages = Int(record.livePages)
        deadBytes = record.deadBytes(fileBytes: fileBytes)
    }
}

extension VolumeRecord {
    /// Bytes of page images in the volume that nothing refers to. What was published and is gone is known; what a crash left behind before
    /// it was published shows where the file is larger than what lives in it can account for.
    ///
    /// - Parameter fileBytes: the file's length; 0 where the volume is not to be looked at.
    func deadBytes(fileBytes: Int) -> Int {
        // LMDB keeps an image in whole pages of 4 KiB, with 16 bytes before it, and needs some for its tree
        let accounted = Int(liveBytes) + Int(livePages) * (4096 + 16) + 64 << 10
        return max(0, Int(writtenBytes) - Int(liveBytes), fileBytes - accounted)
    }
}

/// Chooses the volumes to empty: those with the least live share first, as they give the most space for the least copying.
struct VictimChoice {
    private let records: [(id: UInt64, record: VolumeRecord)]
    private let volumes: VolumeSet

    init(_ store: Store) throws {
        records = try store.read { try store.index.allVolumes(in: $0) }
        volumes = store.volumes
    }

    var liveBytes: Int { records.reduce(0) { $0 + Int($1.record.liveBytes) } }

    var all: [CompactionPlan.Victim] {
        records.map { id, record in
            CompactionPlan.Victim(id: id, record: record, fileBytes: Platform.fileSize(volumes.path(of: id)) ?? 0)
        }
    }

    /// Volumes of which at least `deadShareMin` of the image bytes are dead. One whose file is gone gives no space, and may be put back.
    func victims(deadShareMin: Double) -> [CompactionPlan.Victim] {
        all.filter { $0.fileBytes > 0 && $0.deadBytes > 0 && 1 - $0.liveShare >= deadShareMin }
            .sorted { ($0.liveShare, $0.id) < ($1.liveShare, $1.id) }
    }

    /// Like `victims`, by the index alone, without a look at any file: what crashes left is not seen. Sealed volumes come before
    /// active ones; of those, this process's own only once `activeBytesMin` were written to it.
    func victimsByIndex(deadShareMin: Double, activeBytesMin: Int) -> [UInt64] {
        let own = volumes.activeID
        return records.filter { id, record in
            let written = record.writtenBytes
            guard written > 0, id != own || written >= activeBytesMin else { return false }
            return Double(record.deadBytes(fileBytes: 0)) >= max(1, deadShareMin * Double(written))
        }
        .sorted { left, right in
            left.record.isSealed != right.record.isSealed ? left.record.isSealed : left.record.liveShare < right.record.liveShare
        }
        .map(\.id)
    }
}

extension VolumeRecord {
    fileprivate var liveShare: Double { Double(liveBytes) / Double(max(1, writtenBytes)) }
}

extension Store {
    /// What ``compact(_:progress:)`` would do with these options. Changes nothing.
    ///
    /// - Throws: `StoreError.invalidArgument` for options that cannot be meant.
    public func compactionPlan(_ options: CompactionOptions = CompactionOptions()) throws -> CompactionPlan {
        try options.check()
        return try plan(options, resealing: try volumesToReseal(options))
    }

    /// Volumes with pages that are to be sealed with the key in effect.
    func volumesToReseal(_ options: CompactionOptions) throws -> Set<UInt64> {
        options.reseals ? try read { try index.volumesSealedWithEarlierKeys(in: $0) } : []
    }

    func plan(_ options: CompactionOptions, resealing: Set<UInt64>) throws -> CompactionPlan {
        var plan = CompactionPlan()
        let choice = try VictimChoice(self)
        plan.folderBytes = try Platform.folderBytes(folder)
        plan.liveBytes = choice.liveBytes
        plan.unfinished = try read { try index.unfinished(olderThan: options.unfinishedOlderThan, in: $0).count }
        var expected = plan.folderBytes
        for victim in choice.victims(deadShareMin: 1 - 1 / options.targetRatio) {
            if Double(expected) <= options.targetRatio * Double(plan.liveBytes) { break }
            plan.victims.append(victim)
            expected -= victim.bytesToFree
        }
        let chosen = Set(plan.victims.map(\.id))
        plan.victims += choice.all.filter { resealing.contains($0.id) && !chosen.contains($0.id) }
        return plan
    }
}
