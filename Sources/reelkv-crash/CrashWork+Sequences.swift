import KVCodec
import ReelKV
import StoreModel

extension CrashWork {
    /// Says what is about to be, does it, and says that it is.
    private func change(_ name: SequenceName, isPinned: Bool, to ids: [Int32]?, _ body: () throws -> Void) throws {
        let former = tolerance.failures ? try self.ids(of: name) : nil
        CrashJournal.say(.begins(.init(name: name, isPinned: isPinned, ids: ids)))
        do {
            try body()
            CrashJournal.say(.done)
        } catch let error as StoreError where tolerance.failures && Self.isOfTheSystem(error) {
            // It has happened or not; which of the two is said.
            let found = try self.ids(of: name)
            guard found == ids || found == former else { fatalError("\(name) is half done after: \(error)") }
            CrashJournal.say(.begins(.init(name: name, isPinned: try self.isPinned(name), ids: found)))
            CrashJournal.say(.done)
        } catch let error as StoreError where tolerance.refuses(error.code) {
            CrashJournal.say(.refused)
            throw error
        }
    }

    private func ids(of name: SequenceName) throws -> [Int32]? {
        do {
            let prefix = try store.prefix(of: name, isCounted: false)
            return try store.tokens(of: prefix).ids
        } catch let error as StoreError where error.code == .notFound { return nil }
    }

    private func isPinned(_ name: SequenceName) throws -> Bool {
        do { return try store.info(of: name).isPinned } catch let error as StoreError where error.code == .notFound {
            return name.kind == .video
        }
    }

    /// - Returns: nil where nothing is stored.
    private mutating func existing(_ kind: SequenceKind? = nil) throws -> SequenceName? {
        let all = try SequenceKind.allCases.filter { kind == nil || $0 == kind }
            .flatMap { try store.sequences($0).map(\.name) }.filter { !$0.name.hasPrefix(Self.untouched) }
        return all.isEmpty ? nil : pick(from: all)
    }

    mutating func writeSequence() throws {
        let kind: SequenceKind = pick(3) == 0 ? .video : .session
        let name = SequenceName(kind, "n\(pick(5))", tenant: pick(from: Self.tenants))
        let old = try ids(of: name)
        let base = kind == .session ? old ?? [] : []
        guard base.count < Self.tokensMax else { return try remove(name) }
        // Few different tokens, so that sequences share their beginnings.
        var source = SplitMix64(seed: UInt64(pick(4)))
        let added = (0..<1 + pick(180)).map { _ in Int32(source.next() % 3) }
        let cache = try PredictableCache(base + added)
        let profile = try Profile.named(pick(from: Self.profiles))
        let isPinned = try isPinned(name)
        let chunk = 20 + pick(100)
        try change(name, isPinned: isPinned, to: cache.tokens.ids) {
            let start =
                old == nil
                ? try store.longestPrefix(of: cache.tokens, model: PredictableCache.model.name, tenant: name.tenant) : nil
            let writer = try writer(of: name, profile: profile, startingFrom: start, base: old)
            var first = writer.tokenCount
            while first < cache.tokens.count {
                let end = min(cache.tokens.count, first + chunk)
                try cache.append(first..<end, to: writer)
                first = end
            }
            try writer.finish()
        }
    }

    /// A writer that goes on behind the tokens that the sequence was seen to have, or none.
    private func writer(
        of name: SequenceName, profile: Profile, startingFrom start: StoredPrefix?, base: [Int32]?
    ) throws -> SequenceWriter {
        let writer: SequenceWriter
        do {
            writer = try store.writer(
                for: name, model: PredictableCache.model.name, profile: profile, startingFrom: start,
                continuingAfter: name.kind == .session ? base?.count : nil, replacing: true)
        } catch let error as StoreError where tolerance.contention && base == nil && error.code == .invalidArgument {
            throw StoreError(.conflict, "another process made the session meanwhile")
        }
        // What changes after this is a conflict when the writer ends.
        if tolerance.contention, name.kind == .session, try ids(of: name) != base {
            writer.cancel()
            throw StoreError(.conflict, "another process changed the session meanwhile")
        }
        return writer
    }

    mutating func fork() throws {
        guard let source = try existing(), let old = try ids(of: source) else { return try writeSequence() }
        let target = SequenceName.session("f\(pick(3))", tenant: source.tenant)
        guard try ids(of: target) == nil else { return try remove(target) }
        let count = pick(old.count + 1)
        try change(target, isPinned: false, to: Array(old[..<count])) {
            try cutting { try store.fork(source, to: target.name, count: count) }
        }
    }

    mutating func truncate() throws {
        guard let name = try existing(.session), let old = try ids(of: name) else { return try writeSequence() }
        let count = pick(old.count + 1)
        try change(name, isPinned: try isPinned(name), to: Array(old[..<count])) {
            try cutting { try store.truncate(session: name.name, tenant: name.tenant, to: count) }
        }
    }

    /// Another process may have made the sequence shorter than it is to be cut.
    private func cutting(_ body: () throws -> Void) throws {
        do { try body() } catch let error as StoreError where tolerance.contention && error.code == .invalidArgument {
            throw StoreError(.conflict, error.message)
        }
    }

    mutating func remove() throws {
        guard let name = try existing() else { return try writeSequence() }
        try remove(name)
    }

    private func remove(_ name: SequenceName) throws {
        try change(name, isPinned: false, to: nil) { try store.remove(name) }
    }

    mutating func pin() throws {
        guard let name = try existing(), let ids = try ids(of: name) else { return try writeSequence() }
        let isPinned = pick(2) == 0
        // Where others change what is pinned, it is not known what that will be.
        guard !tolerance.contention else {
            _ = try store.setPinned(isPinned, name)
            return
        }
        try change(name, isPinned: isPinned, to: ids) { _ = try store.setPinned(isPinned, name) }
    }

    /// Whatever is found, under a name or by its tokens, is what was stored.
    mutating func read() throws {
        guard let name = try existing() else { return }
        let prefix = try store.prefix(of: name)
        let cache = try PredictableCache(try store.tokens(of: prefix).ids)
        if let fault = try cache.fault(of: prefix, in: store) { throw CrashRun.Fault(description: "\(name): \(fault)") }
        let match = try store.longestPrefix(of: cache.tokens, model: PredictableCache.model.name, tenant: name.tenant)
        if let fault = try cache.fault(of: match, in: store) { throw CrashRun.Fault(description: "a match: \(fault)") }
    }

    func lookAtAll() throws {
        _ = try store.statistics()
        _ = try store.tenantInfos()
        _ = try store.leases()
        for kind in SequenceKind.allCases { for info in try store.sequences(kind, building: true) { _ = info.frames.count } }
    }
}
