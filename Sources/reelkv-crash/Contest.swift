import KVCodec
import ReelKV
import StoreModel

/// Several processes on one store, and what must hold when they have ended.
struct Contest {
    private var run: CrashRun
    private let isEncrypted: Bool

    var path: String { run.path }

    init(folder: String, seed: UInt64) throws {
        run = try CrashRun(folder: folder, seed: seed, mib: 0, isRelaxed: false)
        isEncrypted = run.isEncrypted
        try fix()
    }

    /// A pinned video that nobody touches.
    private mutating func fix() throws {
        let store = try Store(opening: path)
        let cache = try PredictableCache((0..<200).map { $0 * $0 % 7 })
        let writer = try store.writer(for: .video(CrashWork.untouched), model: PredictableCache.model.name, profile: .exact)
        try cache.append(0..<cache.tokens.count, to: writer)
        try writer.finish()
        run.contents[.video(CrashWork.untouched)] = .init(ids: cache.tokens.ids, isPinned: true)
    }

    /// Sees to it that there is something to change.
    mutating func refill(seed: UInt64, into outcome: inout CrashOutcome) throws {
        var history = history()
        let child = try work(seed: seed, verbs: [.write], steps: 4)
        try child.finish()
        history.add(child.lines)
        try settle(history, into: &outcome)
    }

    /// Starts a process that does some of the verbs.
    func work(seed: UInt64, verbs: [WorkVerb], steps: Int, more: [String] = []) throws -> ChildProcess {
        try ChildProcess(
            [
                "work", "--store", path, "--seed", "\(seed)", "--contended", "--steps", "\(steps)",
                "--verbs", verbs.map(\.rawValue).joined(separator: ","),
            ] + more)
    }

    /// What is there when no process changes anything, as the beginning of what some are about to do.
    func history() -> RaceHistory {
        var history = RaceHistory()
        for (name, content) in run.contents { history.begin(with: name, ids: content.ids) }
        return history
    }

    /// Looks at what the processes of a history left: a sound store, with nothing in it that should not be, and nothing missing.
    mutating func settle(_ history: RaceHistory, into outcome: inout CrashOutcome) throws {
        let store = try Store(opening: path)
        if let keys = try ModelKeys.unlock(store), keys != 1 {
            throw CrashRun.Fault(description: "\(keys) keys open the encrypted tenant")
        }
        let report = try store.verify()
        guard report.problems.isEmpty, report.quarantined == 0 else {
            throw CrashRun.Fault(report.problems, quarantined: report.quarantined)
        }
        run.contents = [:]
        for info in try SequenceKind.allCases.flatMap({ try store.sequences($0) }) {
            let prefix = try store.prefix(of: info.name)
            let ids = try store.tokens(of: prefix).ids
            let cache = try PredictableCache(ids)
            let match = try store.longestPrefix(of: cache.tokens, model: PredictableCache.model.name, tenant: info.name.tenant)
            guard match.tokenCount == ids.count, ids.count == info.tokenCount else {
                throw CrashRun.Fault(description: "\(match.tokenCount) of \(ids.count) tokens of \(info.name) are matched")
            }
            for found in [prefix, match] {
                if let fault = try cache.fault(of: found, in: store) {
                    throw CrashRun.Fault(description: "\(info.name): \(fault)")
                }
            }
            run.contents[info.name] = .init(ids: ids, isPinned: info.isPinned)
            outcome.sequencesCompared += 1
            if prefix.isExact { outcome.exactCompared += 1 }
        }
        outcome.stepsAcknowledged += history.acknowledged
        for name in history.names.union(run.contents.keys) {
            guard history.allows(run.contents[name]?.ids, of: name) else {
                let found = run.contents[name].map { "\($0.ids.count) tokens that nobody stored last" } ?? "gone"
                throw CrashRun.Fault(description: "\(name) of \(name.tenant) is \(found)")
            }
        }
        guard run.contents[.video(CrashWork.untouched)] != nil else {
            throw CrashRun.Fault(description: "the pinned video that nobody touches is gone")
        }
    }

    func remove() { run.remove() }
}

extension ChildProcess {
    /// What a process that nobody holds up may take, in seconds, on whatever machine.
    static let patience = 120.0

    /// Waits until it has ended by itself.
    func finish() throws {
        guard wait(seconds: Self.patience) == .ended else {
            throw CrashRun.Fault(description: "a process hangs, after \(lines.suffix(2))")
        }
        guard ending == "status 0" else {
            throw CrashRun.Fault(description: "a process ended with \(ending), after \(lines.suffix(2))")
        }
    }
}
