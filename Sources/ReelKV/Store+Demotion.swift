import KVCodec
import LMDB

extension Store {
    private static let demotionBatchPages = 16
    private static let demotionBatchBytes = 32 << 20

    /// Encodes cold pages anew, smaller and lossier, instead of dropping them: the coldest first. Callers that accept the greater
    /// error still hit them, others miss. The space comes back by compaction.
    ///
    /// - Parameter progress: called with the pages looked at and all there are; an error thrown from it ends the demotion.
    /// - Throws: `StoreError` with the codes `readOnly`, `noSpace`, `inputOutput`; `invalidArgument` for the profile `exact`.
    public func demote(
        _ options: DemotionOptions, progress: ((_ done: Int, _ total: Int) throws -> Void)? = nil
    ) throws -> DemotionReport {
        try checkWritable()
        let candidates = try demotionCandidates(options)
        var report = DemotionReport()
        var done = 0
        while done < candidates.count {
            if let free = options.freeBytes, try freeBytes() >= free { break }
            let batch = candidates[done..<min(candidates.count, done + Self.demotionBatchPages)]
            report.add(try demote(Array(batch), to: options.profile))
            done += batch.count
            try compactWhileOverQuota()
            try progress?(done, candidates.count)
        }
        try removeDeadVolumes()
        return report
    }

    /// What ``demote(_:progress:)`` would look at: pages and their bytes. What they would take after it only encoding them tells.
    public func demotionPlan(_ options: DemotionOptions) throws -> DemotionReport {
        var report = DemotionReport()
        for hash in try demotionCandidates(options) {
            guard let candidate = try candidate(hash, to: options.profile) else { continue }
            report.pages += 1
            report.bytesBefore += Int(candidate.encoding.imageBytes)
        }
        return report
    }

    /// Bytes free for pages: within the quota if there is one, and on the file system.
    private func freeBytes() throws -> Int {
        let quota = try settings().quotaBytes
        let free = try Platform.freeBytes(folder)
        guard let quota else { return free }
        return min(free, quota - (try Platform.occupiedBytes(folder)))
    }

    private func compactWhileOverQuota() throws {
        guard let quota = try settings().quotaBytes else { return }
        while try Platform.occupiedBytes(folder) > quota {
            let step = try compactStep(bytesMax: 8 << 20)
            if step.copied == 0, step.freed == 0 { break }
        }
    }

    // MARK: - Which pages

    /// Pages that are stored in more bits than the profile has, and unused for long enough, the coldest first.
    private func demotionCandidates(_ options: DemotionOptions) throws -> [Digest] {
        guard options.unusedSeconds >= 0, options.freeBytes ?? 0 >= 0 else {
            throw StoreError(.invalidArgument, "sizes and times must not be negative")
        }
        guard !options.profile.isExact else {
            throw StoreError(.invalidArgument, "pages cannot be demoted to 'exact': choose a profile with fewer bits")
        }
        let before = Platform.unixSeconds(ago: Int64(clamping: options.unusedSeconds))
        return try read { transaction in
            let lastUses = try index.lastUses(in: transaction)
            var found: [(hash: Digest, seconds: Int64)] = []
            try index.nodes.forEach(in: transaction) { key, value in
                let hash = try DigestKey.decode(key)
                let seconds = lastUses[hash] ?? 0
                if seconds <= before, DemotionCandidate(try Node(bytes: value), hash: hash, to: options.profile) != nil {
                    found.append((hash, seconds))
                }
                return .continue
            }
            return found.sorted { $0.seconds < $1.seconds }.map(\.hash)
        }
    }

    private func candidate(_ hash: Digest, to profile: Profile) throws -> DemotionCandidate? {
        try read { try index.node(hash, in: $0) }.flatMap { DemotionCandidate($0, hash: hash, to: profile) }
    }

    /// The next cold pages to be demoted before any are evicted: those of one sequence's end. Goes through the leaves round after
    /// round, and rests where a whole round has found none.
    ///
    /// - Returns: nil when there are none now.
    func nextColdRun(_ demotion: StoreSettings.Demotion) throws -> [Digest]? {
        let now = Platform.unixSeconds()
        var scan = core.demotionScan.withLock { $0 }
        guard now >= scan.restsUntil else { return nil }
        let (found, position) = try read { transaction in
            var run: [Digest] = []
            var position: [UInt8] = []
            try index.leaves.forEachRaw(
                in: scan.position.isEmpty ? .all : .after(scan.position), in: transaction
            ) { key, value in
                guard value.count == 8, value.loadLittleEndian(at: 0, as: Int64.self) <= now - Int64(demotion.unusedSeconds)
                else { return .continue }
                run = try index.demotableRun(endingAt: LeafKey(bytes: key).hash, to: demotion.profile, in: transaction)
                    .filter { !scan.fruitless.contains($0) }
                position = Array(key)
                return run.isEmpty ? .continue : .stop
            }
            return (run, position)
        }
        if found.isEmpty, scan.position.isEmpty {
            scan.restsUntil = now + DemotionScan.restSeconds
            scan.fruitless = []
        }
        let isWrapping = found.isEmpty && !scan.position.isEmpty
        scan.position = found.isEmpty ? [] : position
        core.demotionScan.withLock { $0 = scan }
        return isWrapping ? try nextColdRun(demotion) : found.isEmpty ? nil : found
    }

    // MARK: - Demoting

    /// Demotes some pages together. Those that have changed since they were chosen are left alone.
    func demote(_ hashes: [Digest], to profile: Profile) throws -> DemotionReport {
        let models = Dictionary(try read { try index.allModels(in: $0) }.map { ($0.id, $0.spec) }) { first, _ in first }
        var report = DemotionReport()
        var made: [(candidate: DemotionCandidate, image: EncodedPage, encoding: EncodingRecord)] = []
        var bytes = 0
        let leased = try leased()
        let held = try read { try index.chains(endingAt: leased, in: $0) }
        report.pagesLeft = hashes.count { held.contains($0) }
        for hash in hashes where !held.contains(hash) {
            guard let candidate = try candidate(hash, to: profile), index.canOpen(candidate.node.record),
                let model = models[candidate.node.record.modelId]
            else {
                continue
            }
            let demoter = PageDemoter(store: self, model: model, encoder: PageEncoder(profile: profile))
            do {
                guard let (image, encoding) = try demoter.encode(candidate) else {
                    report.pagesLeft += 1
                    continue
                }
                made.append((candidate, image, encoding))
                bytes += image.count
            } catch let error as StoreError where error.code == .pageUnavailable {
                continue  // damaged and quarantined now, or gone
            } catch let error as StoreError where error.code == .keyRequired {
                report.pagesLeft += 1  // its tenant has another key by now
                continue
            }
            if bytes >= Self.demotionBatchBytes {
                report.add(try publish(made))
                (made, bytes) = ([], 0)
            }
        }
        report.add(try publish(made))
        return report
    }

    /// Puts demoted pages in place of what they were made from: images first, then one transaction, as always.
    private func publish(
        _ made: [(candidate: DemotionCandidate, image: EncodedPage, encoding: EncodingRecord)]
    ) throws -> DemotionReport {
        if made.isEmpty { return DemotionReport() }
        let locations = try StoreError.translating { try volumes.append(made.map(\.image), replacesOthers: true) }
        defer { volumes.settle(locations) }
        return try leaseTable.excludingLeased { leased in
            try write { transaction in
                let held = try index.chains(endingAt: leased, in: transaction)
                var report = DemotionReport()
                for ((candidate, _, encoding), location) in zip(made, locations) {
                    var encoding = encoding
                    encoding.volumeId = location.volume
                    encoding.pageId = location.page
                    guard !held.contains(candidate.hash),
                        try index.isSealedInEffect(encoding.keyEpoch, of: candidate.node.record.tenantId, in: transaction),
                        try index.demote(candidate, to: encoding, in: transaction)
                    else {
                        report.pagesLeft += 1
                        continue
                    }
                    report.pages += 1
                    report.bytesBefore += Int(candidate.encoding.imageBytes)
                    report.bytesAfter += Int(encoding.imageBytes)
                }
                try index.updateCounters(in: transaction) { counters in
                    counters.demotedPages += UInt64(report.pages)
                    counters.demotedBytes += UInt64(report.bytesAfter)
                }
                return report
            }
        }
    }
}

/// How far automatic demotion has looked through the leaves.
struct DemotionScan {
    /// The key of the last leaf looked at; empty before the first.
    var position: [UInt8] = []
    /// Unix time before which it is not worth looking again.
    var restsUntil: Int64 = 0
    /// Pages that it was of no use to encode anew, or that somebody held: not tried again until it has rested.
    var fruitless: Set<Digest> = []

    static let restSeconds: Int64 = 10
}

extension Index {
    private static let runMax = 16

    /// The pages that are as cold as a leaf, and stored in more bits than the profile has: it, and those before it that nothing else
    /// needs.
    func demotableRun(
        endingAt leaf: Digest, to profile: Profile, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [Digest] {
        let last = try usage(leaf, in: transaction)?.lastUsedSeconds ?? 0
        var run: [Digest] = []
        var hash = leaf
        while let node = try node(hash, in: transaction), run.count < Self.runMax {
            let isShared = hash != leaf && (node.record.children > 1 || node.record.pins > 0)
            let used = try usage(hash, in: transaction)?.lastUsedSeconds ?? 0
            if isShared || used > last { break }
            if DemotionCandidate(node, hash: hash, to: profile) != nil { run.append(hash) }
            hash = node.record.parent
        }
        return run
    }

    /// Puts a smaller encoding in place of the larger ones of a node.
    ///
    /// - Returns: false when the node is not what it was when the encoding was made.
    func demote(
        _ candidate: DemotionCandidate, to encoding: EncodingRecord, in transaction: borrowing WriteTransaction
    ) throws -> Bool {
        guard var node = try node(candidate.hash, in: transaction),
            node.encodings.contains(where: { $0.lies(at: candidate.encoding.location) && !$0.isQuarantined })
        else { return false }
        // one that holds tokens which the new one lacks stays
        let superseded = node.encodings.filter {
            $0.lies(at: candidate.encoding.location) || $0.profileId == encoding.profileId
                || ($0.imageBytes > encoding.imageBytes && $0.completeFrom >= encoding.completeFrom)
        }
        for old in superseded { try releaseEncoding(old, of: node.record.tenantId, in: transaction) }
        node.encodings.removeAll { superseded.contains($0) }
        node.encodings.append(encoding)
        try account(for: encoding, of: node.record.tenantId, in: transaction)
        try putNode(node, hash: candidate.hash, in: transaction)
        return true
    }

    /// All nodes of the chains that end at some nodes.
    func chains(
        endingAt tips: Set<Digest>, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Set<Digest> {
        var found: Set<Digest> = []
        for tip in tips {
            var hash = tip
            while !found.contains(hash), let node = try node(hash, in: transaction) {
                found.insert(hash)
                hash = node.record.parent
            }
        }
        return found
    }

    /// When each node was last used, by itself or by what hangs on it. Reads all nodes.
    func lastUses(in transaction: borrowing some Transaction & ~Copyable) throws -> [Digest: Int64] {
        var seconds: [Digest: Int64] = [:]
        var links: [(place: Int, hash: Digest, parent: Digest)] = []
        try nodes.forEach(in: transaction) { key, value in
            let record = try NodeView(value).record
            let hash = try DigestKey.decode(key)
            seconds[hash] = record.createdSeconds
            links.append((record.firstOwnToken, hash, record.parent))
            return .continue
        }
        try usages.forEachRaw(in: .all, in: transaction) { key, value in
            let hash = try DigestKey.decode(key)
            if let usage = UsageRecord(at: 0, of: value), let known = seconds[hash] {
                seconds[hash] = max(known, usage.lastUsedSeconds)
            }
            return .continue
        }
        // children lie deeper than their parents
        for link in links.sorted(by: { $0.place > $1.place }) {
            guard let own = seconds[link.hash], let parents = seconds[link.parent] else { continue }
            seconds[link.parent] = max(own, parents)
        }
        return seconds
    }
}
