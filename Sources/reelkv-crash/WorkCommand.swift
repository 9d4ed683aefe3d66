import ArgumentParser
import KVCodec
import LMDB
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The process that is killed: changes a store in every way until then.
struct WorkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "work", abstract: "The process that is killed.", shouldDisplay: false)

    @Option var store: String
    @Option var seed: UInt64
    /// Microseconds after which it ends, once the store is open.
    @Option var delay: UInt32?
    /// Fault points that it passes before it ends.
    @Option var passes: Int?
    /// Whether it evicts and demotes.
    @Flag var evicts = false
    @Flag var relaxed = false
    /// Steps after which it ends by itself.
    @Option var steps: Int?
    /// Whether a step may fail because the system does.
    @Flag var mayFail = false

    func run() throws {
        let store = try opened()
        var work = try CrashWork(store: store, random: SplitMix64(seed: seed), evicts: evicts, mayFail: mayFail)
        #if REELKV_FAULTS
            if let passes {
                FaultPoint.report = { CrashWork.say(CrashJournal.dies(at: $0)) }
                FaultPoint.arm(after: passes)
            }
        #else
            guard passes == nil else { throw ValidationError("built without fault points: run tools/crash") }
        #endif
        if let delay { CrashWork.endProcess(after: delay) }
        if let steps {
            for _ in 0..<steps { try work.step() }
        } else {
            while true { try work.step() }
        }
    }

    /// Where opening meets the failure, the second try must succeed.
    private func opened() throws -> Store {
        let open = { try Store(opening: store, durability: relaxed ? .relaxed : .durable) }
        do { return try open() } catch let error as StoreError where mayFail && CrashWork.isOfTheSystem(error) {
            return try open()
        }
    }
}

struct CrashWork {
    let store: Store
    var random: SplitMix64
    let evicts: Bool
    let mayFail: Bool

    static let tenants = [Store.defaultTenant, "other"]
    private static let tokensMax = 700
    private static let profiles = ["exact", "exact", "exact", "int4", "vidkv-1.5-1.58"]

    init(store: Store, random: SplitMix64, evicts: Bool, mayFail: Bool) throws {
        self.store = store
        self.random = random
        self.evicts = evicts
        self.mayFail = mayFail
    }

    /// Whether the system is to blame.
    static func isOfTheSystem(_ error: StoreError) -> Bool { [.noSpace, .inputOutput, .readOnly].contains(error.code) }

    /// One line; whole in the pipe or not at all.
    static func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress.map { $0 + done }, $0.count - done) }
            guard count > 0 else { exit(1) }
            done += count
        }
    }

    static func endProcess(after microseconds: UInt32) {
        var thread = pthread_t()
        let delay = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        delay.initialize(to: microseconds)
        let failure = pthread_create(
            &thread, nil,
            { delay in
                usleep(delay.map { $0.load(as: UInt32.self) } ?? 0)
                kill(getpid(), SIGKILL)
                return nil
            }, delay)
        if failure != 0 { exit(1) }
    }

    private mutating func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    private mutating func pick<Element>(from choices: [Element]) -> Element { choices[pick(choices.count)] }

    mutating func step() throws {
        do { try takeStep() } catch let error as StoreError where mayFail && Self.isOfTheSystem(error) {}
    }

    private mutating func takeStep() throws {
        switch pick(20) {
        case 0...9: try writeSequence()
        case 10: try fork()
        case 11: try truncate()
        case 12: try remove()
        case 13: try pin()
        case 14: _ = try store.compactStep(bytesMax: 1 + pick(200_000), deadShareMin: 0)
        case 15:
            var options = CompactionOptions()
            options.targetRatio = 1
            options.unfinishedOlderThan = 0
            _ = try store.compact(options)
        case 16:
            try store.sync()
            Self.say(CrashJournal.flushed)
        default: if evicts { try makeRoom() }
        }
    }

    // MARK: - Steps

    /// Says what is about to be, does it, and says that it is.
    private func change(_ name: SequenceName, isPinned: Bool, to ids: [Int32]?, _ body: () throws -> Void) throws {
        let former = mayFail ? try self.ids(of: name) : nil
        Self.say(CrashJournal.Step(name: name, isPinned: isPinned, ids: ids).line)
        do {
            try body()
            Self.say(CrashJournal.done)
        } catch let error as StoreError where mayFail && Self.isOfTheSystem(error) {
            // It has happened or not; which of the two is said.
            let found = try self.ids(of: name)
            guard found == ids || found == former else { fatalError("\(name) is half done after: \(error)") }
            Self.say(CrashJournal.Step(name: name, isPinned: try self.isPinned(name), ids: found).line)
            Self.say(CrashJournal.done)
        } catch let error as StoreError
            where evicts && [.conflict, .pageUnavailable, .quotaExceeded, .notFound].contains(error.code)
        {
            // Somebody's pages were evicted meanwhile: it has not happened.
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

    private mutating func writeSequence() throws {
        let kind: SequenceKind = pick(3) == 0 ? .video : .session
        let name = SequenceName(kind, "n\(pick(5))", tenant: pick(from: Self.tenants))
        let old = try ids(of: name)
        let base = kind == .session ? old ?? [] : []
        guard base.count < Self.tokensMax else { return try remove(name) }
        // Few different tokens, so that sequences share their beginnings.
        var source = SplitMix64(seed: UInt64(pick(4)))
        let added = (0..<1 + pick(180)).map { _ in Int32(source.next() % 3) }
        let cache = try CrashCache(base + added)
        let profile = try Profile.named(pick(from: Self.profiles))
        let isPinned = try isPinned(name)
        let chunk = 20 + pick(100)
        try change(name, isPinned: isPinned, to: cache.tokens.ids) {
            let start =
                old == nil
                ? try store.longestPrefix(of: cache.tokens, model: CrashCache.model.name, tenant: name.tenant) : nil
            let writer = try store.writer(
                for: name, model: CrashCache.model.name, profile: profile, startingFrom: start, replacing: true)
            var first = writer.tokenCount
            while first < cache.tokens.count {
                let end = min(cache.tokens.count, first + chunk)
                try cache.append(first..<end, to: writer)
                first = end
            }
            try writer.finish()
        }
    }

    private mutating func existing(_ kind: SequenceKind? = nil) throws -> SequenceName? {
        let all = try SequenceKind.allCases.filter { kind == nil || $0 == kind }.flatMap { try store.sequences($0).map(\.name) }
        return all.isEmpty ? nil : all[pick(all.count)]
    }

    private mutating func fork() throws {
        guard let source = try existing(), let old = try ids(of: source) else { return }
        let target = SequenceName.session("f\(pick(3))", tenant: source.tenant)
        guard try ids(of: target) == nil else { return try remove(target) }
        let count = pick(old.count + 1)
        try change(target, isPinned: false, to: Array(old[..<count])) { try store.fork(source, to: target.name, count: count) }
    }

    private mutating func truncate() throws {
        guard let name = try existing(.session), let old = try ids(of: name) else { return }
        let count = pick(old.count + 1)
        try change(name, isPinned: try isPinned(name), to: Array(old[..<count])) {
            try store.truncate(session: name.name, tenant: name.tenant, to: count)
        }
    }

    private mutating func remove() throws {
        if let name = try existing() { try remove(name) }
    }

    private func remove(_ name: SequenceName) throws {
        try change(name, isPinned: false, to: nil) { try store.remove(name) }
    }

    private mutating func pin() throws {
        guard let name = try existing(), let ids = try ids(of: name) else { return }
        let isPinned = pick(2) == 0
        try change(name, isPinned: isPinned, to: ids) { _ = try store.setPinned(isPinned, name) }
    }

    /// What nobody has pinned may go.
    private mutating func makeRoom() throws {
        Self.say(CrashJournal.evicts)
        switch pick(3) {
        case 0:
            var options = DemotionOptions(profile: try .named("vidkv-1-1"))
            options.freeBytes = nil
            _ = try store.demote(options)
        case 1:
            let bound = (4 + pick(8)) << 20
            try store.update { $0.quotaBytes = pick(2) == 0 ? nil : bound }
        default: _ = try store.evict(to: (1 + pick(4)) << 20)
        }
    }
}
