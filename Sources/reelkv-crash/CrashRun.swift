import KVCodec
import ReelKV
import StoreModel

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One store, and what it must hold.
struct CrashRun {
    struct Fault: Error, CustomStringConvertible {
        let description: String

        init(description: String) { self.description = description }

        /// What a verification finds.
        init(_ problems: [VerificationProblem], quarantined: Int = 0) {
            let first = problems.prefix(3).map { "\($0.kind) \($0.subject) \($0.message)" }.joined(separator: "; ")
            description = "\(problems.count) problems, \(quarantined) quarantined: \(first)"
        }
    }

    /// What is known of a sequence: what it holds, and whether it may be gone.
    struct Content {
        var ids: [Int32]
        var isPinned: Bool
        var mayBeGone = false
        /// Whether pages of it are lost: it holds the first of its tokens, until somebody stores those pages again.
        var isShort = false
    }

    private let place: TemporaryStore
    private(set) var path: String
    var random: SplitMix64
    var evicts: Bool
    let relaxed: Bool
    /// Whether one of the tenants is encrypted.
    let isEncrypted: Bool
    /// Whether the machine crashed since the store was last looked at.
    var isTorn = false
    /// What was changed since all was on the disk.
    var unflushed: Set<SequenceName> = []
    /// What was changed last, and what it was before: the commit that a crash of the machine may undo is of one of these.
    var newest: [(name: SequenceName, former: Content?)] = []
    /// Whether pages were lost to such a crash.
    var hasLost = false
    var contents: [SequenceName: Content] = [:]
    /// Where a sequence was being changed when a process ended: either may be.
    var pending: CrashJournal.Step?

    /// - Parameter isRelaxed: nil to let the seed choose.
    init(folder: String, seed: UInt64, mib: Int, isRelaxed: Bool? = nil) throws {
        random = SplitMix64(seed: seed)
        // Half of the stores have to keep everything.
        evicts = random.next() % 2 == 0
        let mayRelax = random.next() % 4 == 0
        relaxed = isRelaxed ?? mayRelax
        isEncrypted = random.next() % 2 == 0
        place = try TemporaryStore(in: folder)
        path = place.path
        var options = Store.Options()
        options.pageTokens = 32
        options.volumeBytesMax = mib > 0 ? 64 << 20 : 1 << 20
        let store = try Store.create(at: path, options: options)
        try store.addModel(PredictableCache.model)
        if isEncrypted { try store.createTenant(named: ModelKeys.tenant, key: try ModelKeys.key(0)) }
        try fill(store, mib: mib)
    }

    func remove() { place.remove() }

    /// Pages that lie there from the start; nobody touches them.
    private mutating func fill(_ store: Store, mib: Int) throws {
        var number = 0
        while try store.statistics().volumes.reduce(0, { $0 + $1.fileBytes }) < mib << 20 {
            var source = SplitMix64(seed: 77 &+ UInt64(number))
            let cache = try PredictableCache((0..<4096).map { _ in Int32(source.next() % 1000) })
            let name = SequenceName.video("\(CrashWork.untouched)\(number)")
            let writer = try store.writer(for: name, model: PredictableCache.model.name, profile: .exact)
            try cache.append(0..<cache.tokens.count, to: writer)
            try writer.finish()
            contents[name] = Content(ids: cache.tokens.ids, isPinned: true)
            number += 1
        }
    }

    // MARK: - A kill

    mutating func killOne(into outcome: inout CrashOutcome) throws {
        let seed = random.next()
        var arguments = work(seed: seed)
        if random.next() % 2 == 0 {
            arguments += ["--delay", "\(random.next() % 40_000)"]
        } else {
            arguments += ["--passes", "\(1 + random.next() % 60)", "--delay", "5000000"]
        }
        let child = try ChildProcess.run(arguments)
        for line in child.lines { take(line, into: &outcome) }
        guard child.signal == SIGKILL else {
            throw Fault(description: "seed \(seed): the process ended by itself: \(child.ending)")
        }
        try look(into: &outcome, seed: seed)
    }

    /// The arguments of a process that changes the store.
    func work(seed: UInt64) -> [String] {
        ["work", "--store", path, "--seed", "\(seed)"] + (evicts ? ["--evicts"] : []) + (relaxed ? ["--relaxed"] : [])
    }

    /// This run where a crash of the machine left another folder.
    func torn(number: Int) -> CrashRun {
        var run = self
        run.path = path.dropLast("store".count) + "torn-\(number)"
        run.isTorn = true
        // A process that meets lost pages may fail, as one may that others evict from.
        run.evicts = evicts || relaxed
        return run
    }

    mutating func take(_ line: Substring, into outcome: inout CrashOutcome) {
        switch CrashJournal.parse(line)?.entry {
        case .begins(let step): pending = step
        case .done:
            guard let step = pending else { return }
            acknowledge(step)
            pending = nil
            outcome.stepsAcknowledged += 1
        case .refused: pending = nil
        case .evicts: for name in contents.keys where contents[name]?.isPinned == false { contents[name]?.mayBeGone = true }
        case .flushed: (unflushed, newest) = ([], [])
        case .dies(let point): outcome.points[point, default: 0] += 1
        case .heldUp, nil: break  // nil: the last line, cut
        }
    }

    private mutating func acknowledge(_ step: CrashJournal.Step) {
        let former = contents[step.name]
        // What it was already may have taken no commit, so that the last one is another's.
        if step.ids == nil || former?.ids != step.ids || former?.isPinned != step.isPinned { newest = [] }
        newest.append((step.name, former))
        unflushed.insert(step.name)
        contents[step.name] = step.ids.map { ids in
            // Pages that are stored again come back to a sequence that was only pinned meanwhile.
            if let former, former.isShort, former.ids.starts(with: ids) {
                return Content(ids: former.ids, isPinned: step.isPinned, isShort: true)
            }
            return Content(ids: ids, isPinned: step.isPinned)
        }
    }

    func removeStore() { TemporaryStore.removeTree(path) }
}
