import LMDB
import Synchronization

/// How far a compaction is.
public struct CompactionProgress: Hashable, Sendable {
    public var bytesCopied = 0
    /// About, as found when it began.
    public var bytesToCopy = 0
    public var volumesRemoved = 0
    public var volumesToRemove = 0
}

/// What a compaction did.
public struct CompactionReport: Hashable, Sendable {
    /// Volumes emptied and removed.
    public var volumesRemoved = 0
    /// Mostly dead volumes left alone: another process writes them, or has yet to publish what it wrote.
    public var volumesInUse = 0
    /// Mostly dead volumes left alone because they cannot be read: `verify` says why.
    public var volumesUnreadable = 0
    public var bytesCopied = 0
    public var pagesCopied = 0
    /// Bytes of every file in the store's folder, before and after.
    public var folderBytesBefore = 0
    public var folderBytesAfter = 0
    /// Bytes of all page images that encodings refer to, in the end.
    public var liveBytes = 0
    /// Sequences left unfinished that were deleted.
    public var unfinishedRemoved = 0
    /// Encodings dropped because another one of the same page is as exact, as complete, and no larger.
    public var dominatedDropped = 0
    /// Pages found damaged: they count as not stored from now on.
    public var damagedPages = 0

    public var bytesFreed: Int { folderBytesBefore - folderBytesAfter }
}

extension Store {
    /// At most one compaction runs on a store at a time: whoever has this file locked.
    static let compactionLockName = "compact.lock"
    private static let batchBytesMax = 8 << 20
    /// Bytes of free pages for which the index file is worth being written anew.
    private static let indexGainMin = 64 << 10

    /// Gives space back: empties mostly dead volumes, by copying what lives in them to where this process appends, and removes them. Also
    /// deletes what writers that ended left unfinished, and encodings that others make superfluous.
    ///
    /// Other processes go on reading and writing. It takes at most the space of one volume more than is used when it begins. When it
    /// is interrupted, nothing is lost, and the next one goes on from there.
    ///
    /// - Parameter progress: called after each batch, and while it waits to keep to the rate, with no lock held that others wait for. An
    ///   error thrown from it ends the compaction.
    /// - Throws: `StoreError` with the codes `inUse` while another one runs, `invalidArgument`, `readOnly`, `noSpace`, `inputOutput`.
    public func compact(
        _ options: CompactionOptions = CompactionOptions(), progress: ((CompactionProgress) throws -> Void)? = nil
    ) throws -> CompactionReport {
        try options.check()
        try checkWritable()
        guard let lock = try FileLock(path: folder + "/" + Self.compactionLockName) else {
            throw StoreError(.inUse, "another process is compacting the store \(path): let it finish")
        }
        defer { withExtendedLifetime(lock) {} }
        var report = CompactionReport()
        report.folderBytesBefore = try Platform.folderBytes(folder)
        report.unfinishedRemoved = try removeUnfinished(olderThan: options.unfinishedOlderThan)
        report.dominatedDropped = try dropDominatedEncodings()
        try removeDeadVolumes()
        try emptyVolumes(options, into: &report, progress: progress)
        try removeDeadVolumes()
        try forgetEarlierKeys()
        try shrinkIndex(ifGaining: Self.indexGainMin)
        report.folderBytesAfter = try Platform.folderBytes(folder)
        report.liveBytes = try VictimChoice(self).liveBytes
        return report
    }

    private func emptyVolumes(
        _ options: CompactionOptions, into report: inout CompactionReport, progress: ((CompactionProgress) throws -> Void)?
    ) throws {
        let resealing = try volumesToReseal(options)
        let plan = try plan(options, resealing: resealing)
        var pace = CompactionPace(bytesPerSecondMax: options.bytesPerSecondMax, progress: progress)
        pace.state.bytesToCopy = plan.bytesToCopy
        pace.state.volumesToRemove = plan.victims.count
        try retireMostlyDead(options)
        let batchBytes = min(Self.batchBytesMax, options.bytesPerSecondMax ?? .max)
        var tried: Set<UInt64> = []
        while let victim = try self.plan(options, resealing: resealing).victims.first(where: { !tried.contains($0.id) }) {
            tried.insert(victim.id)
            guard var evacuation = try Evacuation(victim.id, of: self) else {
                report.volumesInUse += 1
                continue
            }
            defer {
                report.pagesCopied += evacuation.copiedPages
                report.damagedPages += evacuation.damagedPages
            }
            while !evacuation.isAtEnd {
                guard let copied = try evacuation.copyIfReadable(bytesMax: batchBytes) else { break }
                report.bytesCopied += copied
                try pace.didCopy(copied)
            }
            if !evacuation.isAtEnd {
                report.volumesUnreadable += 1
            } else if try evacuation.finish() != nil {
                report.volumesRemoved += 1
            }
            try pace.didFinishVolume()
        }
    }

    /// Seals the mostly dead volumes that somebody might still append to: what was copied there would soon be copied again.
    private func retireMostlyDead(_ options: CompactionOptions) throws {
        let victims = try VictimChoice(self).victims(deadShareMin: 1 - 1 / options.targetRatio)
        for victim in victims where !victim.isSealed { _ = try StoreError.translating { try volumes.retire(victim.id) } }
    }

    // MARK: - Tidying

    /// Deletes sequences that a writer, which has ended since, left unfinished.
    ///
    /// - Returns: how many.
    package func removeUnfinished(olderThan seconds: Int64) throws -> Int {
        let found = try read { try index.unfinished(olderThan: seconds, in: $0) }
        return try found.count { key in
            try write { transaction in
                // a new writer of the name may have removed it since
                guard try index.buildingHead(key, in: transaction) != nil else { return false }
                try index.moveBuilding(key, to: nil, in: transaction)
                return true
            }
        }
    }

    /// Drops encodings of which another one of the same page is at least as exact in keys and in values, as complete, and not larger.
    ///
    /// - Returns: how many.
    package func dropDominatedEncodings() throws -> Int {
        let hashes = Set(try read { try index.dominatedEncodings(in: $0) }.map(\.hash))
        if hashes.isEmpty { return 0 }
        return try write { transaction in
            try hashes.reduce(0) { try $0 + index.dropDominated($1, in: transaction) }
        }
    }
}

extension Index {
    /// Sequences being written whose writer has ended, and that nobody appended to for that many seconds.
    func unfinished(
        olderThan seconds: Int64, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [BuildingKey] {
        let latest = Platform.unixSeconds(ago: seconds)
        return try allBuilding(in: transaction)
            .filter { !$0.head.record.isWriterAlive && $0.head.record.updatedSeconds <= latest }
            .map(\.key)
    }
}

/// Reports how far a compaction is, and holds it to its rate.
private struct CompactionPace {
    var state = CompactionProgress()
    private var pace: Pace
    private let progress: ((CompactionProgress) throws -> Void)?

    init(bytesPerSecondMax: Int?, progress: ((CompactionProgress) throws -> Void)?) {
        pace = Pace(bytesPerSecondMax: bytesPerSecondMax)
        self.progress = progress
    }

    mutating func didCopy(_ bytes: Int) throws {
        state.bytesCopied += bytes
        let (state, progress) = (state, progress)
        try pace.didDo(bytes) { try progress?(state) }
    }

    mutating func didFinishVolume() throws {
        state.volumesRemoved += 1
        try progress?(state)
    }
}
