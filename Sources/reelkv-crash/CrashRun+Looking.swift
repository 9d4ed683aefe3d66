import KVCodec
import ReelKV
import StoreModel

extension CrashRun {
    // MARK: - What a process left

    mutating func look(into outcome: inout CrashOutcome, seed: UInt64) throws {
        let clock = ContinuousClock()
        var opened: Store?
        let time = try clock.measure { opened = try Store(opening: path) }
        let milliseconds = Double(time.components.seconds) * 1000 + Double(time.components.attoseconds) / 1e15
        outcome.reopenMillisecondsMax = max(outcome.reopenMillisecondsMax, milliseconds)
        guard let store = opened else { return }
        if let keys = try ModelKeys.unlock(store), keys != 1 {
            throw Fault(description: "seed \(seed): \(keys) keys open the encrypted tenant")
        }
        let names = Set(try SequenceKind.allCases.flatMap { try store.sequences($0).map(\.name) })
        try settle(names, store, seed)
        // What is lost is found by whoever reads it, and by a verification, whichever is first.
        let isVerifiedFirst = !mayLose || random.next() % 2 == 0
        if isVerifiedFirst { try verify(store, seed) }
        for name in names where contents[name] == nil {
            throw Fault(description: "seed \(seed): \(name) is there, and should be gone")
        }
        for (name, content) in contents {
            guard names.contains(name) else {
                guard content.mayBeGone else { throw Fault(description: "seed \(seed): \(name) of \(name.tenant) is gone") }
                contents[name] = nil
                continue
            }
            if name.name.hasPrefix(CrashWork.untouched), random.next() % 64 != 0 { continue }
            try compare(name, content, store, seed, into: &outcome)
        }
        if !isVerifiedFirst { try verify(store, seed) }
        (isTorn, unflushed, newest) = (false, [], [])
    }

    /// Whether what is newest may be lost.
    private var mayLose: Bool { isTorn && relaxed }

    private mutating func verify(_ store: Store, _ seed: UInt64) throws {
        let report = try store.verify(depth: contents.count > 40 ? .index : .checksums, quarantining: mayLose)
        // Images that are not there.
        let problems = report.problems.filter { !mayLose || $0.kind != .page }
        if report.quarantined > 0 || problems.count < report.problems.count { hasLost = true }
        guard problems.isEmpty, report.quarantined == 0 || hasLost && relaxed else {
            throw Fault(description: "seed \(seed): \(Fault(problems, quarantined: report.quarantined))")
        }
    }

    // MARK: - What was being changed

    /// What was being done when the process or the machine ended has happened or has not.
    private mutating func settle(_ names: Set<SequenceName>, _ store: Store, _ seed: UInt64) throws {
        if mayLose { try settleNewest(names, store) }
        guard let step = pending else { return }
        pending = nil
        let former = contents[step.name]
        guard names.contains(step.name) else {
            let mayBeGone = step.ids == nil || former == nil || former?.mayBeGone == true || (evicts && former?.isPinned == false)
            guard mayBeGone else { throw Fault(description: "seed \(seed): \(step.name) is gone, and was only changed") }
            contents[step.name] = nil
            return
        }
        let found = try store.tokens(of: try store.prefix(of: step.name)).ids
        if let former, former.isShort, former.ids.starts(with: found) { return }
        guard found == step.ids || found == former?.ids else {
            throw Fault(description: "seed \(seed): \(step.name) is half done")
        }
        // Whether it is pinned now it says itself.
        contents[step.name] = Content(ids: found, isPinned: try store.info(of: step.name).isPinned)
        unflushed.insert(step.name)
    }

    /// What was acknowledged last may be undone, and nothing before it.
    private mutating func settleNewest(_ names: Set<SequenceName>, _ store: Store) throws {
        for (name, former) in newest {
            guard names.contains(name) else {
                if former == nil { contents[name] = nil }
                continue
            }
            let found = try store.tokens(of: try store.prefix(of: name)).ids
            guard found == contents[name]?.ids || found == former?.ids else { continue }
            contents[name] = Content(
                ids: found, isPinned: try store.info(of: name).isPinned, mayBeGone: former?.mayBeGone ?? false)
        }
    }

    // MARK: - What a sequence holds

    private mutating func compare(
        _ name: SequenceName, _ content: Content, _ store: Store, _ seed: UInt64, into outcome: inout CrashOutcome
    ) throws {
        let cache = try PredictableCache(content.ids)
        let mayBeShort = content.isShort || mayLose && unflushed.contains(name)
        // The newest encoding of an old page may be lost; then there is the old one.
        let mayRetry = mayLose || content.isShort
        let prefix: StoredPrefix
        let match: StoredPrefix
        do {
            prefix = try compared(cache, in: store, mayRetry: mayRetry) { try store.prefix(of: name) }
            // It is found by its tokens, by its own tenant and by nobody who has not stored them.
            match = try compared(cache, in: store, mayRetry: mayRetry) {
                try store.longestPrefix(of: cache.tokens, model: PredictableCache.model.name, tenant: name.tenant)
            }
        } catch { throw Fault(description: "seed \(seed): \(name) of \(name.tenant): \(error)") }
        let isShort = prefix.tokenCount < content.ids.count
        guard mayBeShort || !isShort && match.tokenCount == content.ids.count else {
            throw Fault(
                description: "seed \(seed): \(name) of \(name.tenant) holds \(prefix.tokenCount) tokens of \(content.ids.count), "
                    + "and \(match.tokenCount) of them are matched")
        }
        contents[name]?.isShort = isShort
        outcome.sequencesCompared += 1
        if prefix.isExact { outcome.exactCompared += 1 }
        if isShort {
            outcome.sequencesShortened += 1
            hasLost = true
        }
    }

    /// A prefix of these tokens, restored and compared; where pages turn out to be lost, what is left of it.
    private func compared(
        _ cache: PredictableCache, in store: Store, mayRetry: Bool, _ find: () throws -> StoredPrefix
    ) throws -> StoredPrefix {
        var attempts = 0
        while true {
            let prefix = try find()
            let ids = try store.tokens(of: prefix).ids
            guard cache.tokens.ids.starts(with: ids) else { throw Fault(description: "it holds other tokens") }
            do {
                if let fault = try cache.fault(of: prefix, in: store) { throw Fault(description: fault) }
                return prefix
            } catch let error as StoreError where error.code == .pageUnavailable && mayRetry && attempts < 100 {
                attempts += 1
            }
        }
    }
}
