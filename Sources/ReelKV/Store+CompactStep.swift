/// What a process remembers between the steps of a compaction. Of no value to any other: where it is lost, the next step starts over.
struct CompactionSteps {
    /// The volume being emptied, and the page up to which nothing lives in it.
    var position: VolumeSet.Location?
    /// Volumes that could not be read, or of which the index says things that cannot be.
    var unreadable: Set<UInt64> = []
}

extension Store {
    /// Volumes that a step tries for one that nobody else uses.
    private static let candidatesMax = 16

    /// One bounded piece of work on the volume with the least live share: copies at most `bytesMax` bytes, or one image, and removes the
    /// volume when nothing lives in it any more. Costs a look at the volumes' records when there is nothing to do.
    ///
    /// - Parameter deadShareMin: the share of dead bytes that a volume must have for it to be worth the copying.
    /// - Parameter looksAtFiles: whether to look for what crashes left behind too, which only the files' lengths show.
    /// - Returns: bytes copied, and bytes of files removed; 0 and 0 when there is nothing to do, or others have all of it in hand.
    package func compactStep(
        bytesMax: Int, deadShareMin: Double = 0.1, looksAtFiles: Bool = false
    ) throws -> (copied: Int, freed: Int) {
        try checkWritable()
        let known = core.compactionSteps.withLock { $0 }
        let choice = try VictimChoice(self)
        var candidates = choice.victimsByIndex(deadShareMin: deadShareMin, activeBytesMin: volumes.sealBytes / 4)
        if looksAtFiles { candidates += choice.victims(deadShareMin: deadShareMin).map(\.id).filter { !candidates.contains($0) } }
        if let begun = known.position?.volume { candidates = [begun] + candidates.filter { $0 != begun } }
        for id in candidates.filter({ !known.unreadable.contains($0) }).prefix(Self.candidatesMax) {
            // where this process stopped in a volume is of no use in another
            let position = known.position?.volume == id ? known.position?.page ?? 0 : 0
            guard var evacuation = try Evacuation(id, of: self, from: position) else { continue }
            do {
                let copied = try evacuation.copyBatch(bytesMax: bytesMax)
                let freed = evacuation.isAtEnd ? try evacuation.finish() : 0
                // one that has to stay although it is at its end is counted wrong, and must not stand in the way of others
                if freed == nil { core.compactionSteps.withLock { _ = $0.unreadable.insert(id) } }
                let reached = evacuation.isAtEnd ? nil : VolumeSet.Location(volume: id, page: evacuation.position)
                core.compactionSteps.withLock { $0.position = reached }
                if copied == 0, freed ?? 0 == 0, evacuation.isAtEnd { continue }
                // what has looked at dead images alone has done something too
                return (max(copied, evacuation.isAtEnd ? 0 : 1), freed ?? 0)
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
