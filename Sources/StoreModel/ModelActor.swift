import ReelKV

/// Somebody who has the store open: a session of this process, or another process.
package protocol ModelActor: AnyObject {
    func perform(_ order: ModelOrder) throws -> ModelOrder.Reply
    /// Closes the store and opens it again. A writer that was left open is gone.
    ///
    /// - Parameter isKilled: whether it has no time to close it.
    func restart(isKilled: Bool) throws
}

/// One that works on a store of its own.
package final class LocalActor: ModelActor {
    private let path: String
    private var store: Store
    private var writer: SequenceWriter?

    package init(path: String) throws {
        self.path = path
        store = try Store(opening: path)
    }

    package func restart(isKilled: Bool) throws {
        writer = nil
        store = try Store(opening: path)
    }

    package func perform(_ order: ModelOrder) -> ModelOrder.Reply {
        do { return try performOrThrow(order) } catch let error as StoreError {
            return .refused(code: error.code.rawValue, message: error.message)
        } catch { return .wrong("\(error)") }
    }

    private func performOrThrow(_ order: ModelOrder) throws -> ModelOrder.Reply {
        switch order {
        case .write(let name, let profile, let ids, let isFinished): try write(name, profile, ids, isFinished: isFinished)
        case .finish:
            defer { writer = nil }
            try writer?.finish()
        case .fork(let name, let target, let count): try store.fork(name, to: target, count: count)
        case .truncate(let name, let count): try store.truncate(session: name.name, tenant: name.tenant, to: count)
        case .remove(let name): try store.remove(name)
        case .pin(let name, let isPinned): try store.setPinned(isPinned, name)
        case .check(let name, let ids):
            if let fault = try fault(of: name, ids) { return .wrong("\(name.tenant) \(name) \(fault)") }
        case .list:
            let infos = try SequenceKind.allCases.flatMap { try store.sequences($0) }
            return .listed(Dictionary(uniqueKeysWithValues: infos.map { ($0.name, "\($0.tokenCount),\($0.isPinned)") }))
        case .evict(let bytes): _ = try store.evict(to: bytes)
        case .quota(let bytes): try store.update { $0.quotaBytes = bytes == 0 ? nil : bytes }
        case .demote: _ = try store.demote(DemotionOptions(profile: .named("vidkv-1-1")))
        case .compact:
            var options = CompactionOptions()
            options.targetRatio = 1
            options.unfinishedOlderThan = 0
            options.reseals = true
            _ = try store.compact(options)
        case .verify:
            let report = try store.verify()
            if let problem = report.problems.first {
                return .wrong("verify finds \(problem.kind) \(problem.subject) \(problem.message)")
            }
            if report.quarantined > 0 { return .wrong("\(report.quarantined) pages are quarantined") }
        case .rekey(let number): try store.rekey(tenant: ModelKeys.tenant, to: ModelKeys.key(number))
        case .unlock(let number): try store.unlock(tenant: ModelKeys.tenant, with: ModelKeys.key(number))
        }
        return .done
    }

    private func write(_ name: SequenceName, _ profile: String, _ ids: [Int32], isFinished: Bool) throws {
        let cache = try PredictableCache(ids)
        let isNew = try !store.sequences(name.kind, tenant: name.tenant).contains { $0.name == name }
        let start =
            isNew && name.kind == .session
            ? try store.longestPrefix(of: cache.tokens, model: PredictableCache.model.name, tenant: name.tenant) : nil
        let writer = try store.writer(
            for: name, model: PredictableCache.model.name, profile: .named(profile), startingFrom: start, replacing: true)
        var first = writer.tokenCount
        while first < ids.count {
            let end = min(ids.count, first + 50)
            try cache.append(first..<end, to: writer)
            first = end
        }
        if isFinished {
            try writer.finish()
        } else {
            try writer.flush()
            self.writer = writer
        }
    }

    private func fault(of name: SequenceName, _ ids: [Int32]) throws -> String? {
        let cache = try PredictableCache(ids)
        let prefix = try store.prefix(of: name)
        guard try store.tokens(of: prefix).ids == ids else { return "has other tokens" }
        if let fault = try cache.fault(of: prefix, in: store) { return fault }
        for count in [ids.count, ids.count / 2] {
            let match = try store.longestPrefix(
                of: cache.tokens[0..<count], model: PredictableCache.model.name, tenant: name.tenant)
            guard match.tokenCount == count else { return "matches \(match.tokenCount) of its first \(count) tokens" }
            if let fault = try cache.fault(of: match, in: store) { return "as it is matched: \(fault)" }
        }
        return nil
    }
}
