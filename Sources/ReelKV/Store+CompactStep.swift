/// What a process remembers between the steps of a compaction. Of no value to any other: where it is lost, the next step starts over.
struct CompactionSteps {
    /// The volume being emptied, and the page up to which nothing lives in it.
    var position: VolumeSet.Location?
    /// Volumes that could not be read, or of which the index says things that cannot be.
    var unreadable: Set<UInt64> = []
}

extension Store {
    /// Volumes that a step tries for one that nobody else uses.
    private static let candidatesMax = 4

    /// One bounded piece of work on the volume with the least live share: copies at most `bytesMax` bytes, or one image, and removes the
    /// volume when nothing lives in it any more. Costs a look at the volumes' records when there is nothing to do.
    ///
    /// - Parameter deadShareMin: the share of dead bytes that a volume must have for it to be worth the copying.
    /// - Returns: bytes copied, and bytes of files removed; 0 and 0 when there is nothing to do, and while another compaction runs.
    package func compactStep(bytesMax: Int, deadShareMin: Double = 0.1) throws -> (copied: Int, freed: Int) {
        try checkWritable()
        let known = core.compactionSteps.withLock { $0 }
        let candidates =
            try known.position.map { [$0.volume] }
            ?? VictimChoice(self).victimsByIndex(deadShareMin: deadShareMin, activeBytesMin: volumes.sealBytes / 4)
            .filter { !known.unreadable.contains($0) }
        guard !candidates.isEmpty, let lock = try FileLock(path: folder + "/" + Self.compactionLockName) else { return (0, 0) }
        defer { withExtendedLifetime(lock) {} }
        for id in candidates.prefix(Self.candidatesMax) {
            guard var evacuation = try Evacuation(id, of: self, from: known.position?.page ?? 0) else { continue }
            do {
                let copied = try evacuation.copyBatch(bytesMax: bytesMax)
                let freed = evacuation.isAtEnd ? try evacuation.finish() ?? 0 : 0
                let position = evacuation.isAtEnd ? nil : VolumeSet.Location(volume: id, page: evacuation.position)
                core.compactionSteps.withLock { $0.position = position }
                return (copied, freed)
            } catch let error as StoreError where error.code == .pageUnavailable || error.code == .damaged {
                core.compactionSteps.withLock { _ = $0.unreadable.insert(id) }
            }
        }
        core.compactionSteps.withLock { $0.position = nil }
        return (0, 0)
    }
}

extension Store {
    /// Bytes of a file at which this process seals a volume, even if more would fit: space comes back in units of it.
    package var volumeSealBytes: Int {
        get { volumes.sealBytes }
        set { volumes.sealBytes = newValue }
    }
}
