import KVCodec
import ReelKV
import StoreModel

/// Changes a store step by step, and says what it is about to do and has done.
struct CrashWork {
    /// What a step may meet that is nobody's mistake.
    struct Tolerance {
        /// Pages that nobody has pinned may be gone.
        var evictions: Bool
        /// Calls of the system fail.
        var failures: Bool
        /// Other processes change the same sequences.
        var contention: Bool

        /// Whether a step that failed so has not happened.
        func refuses(_ code: StoreError.Code) -> Bool {
            evictions && [.conflict, .pageUnavailable, .quotaExceeded, .notFound].contains(code)
                || contention && Self.ofOthers.contains(code)
        }

        /// Another process was first, has it locked, or has given the tenant another key.
        private static let ofOthers: [StoreError.Code] = [
            .conflict, .notFound, .alreadyExists, .inUse, .pageUnavailable, .keyRequired, .wrongKey,
        ]
    }

    private(set) var store: Store
    let path: String
    let durability: Store.Durability
    var random: SplitMix64
    let verbs: [WorkVerb]
    let tolerance: Tolerance

    static let tenants = [Store.defaultTenant, ModelKeys.tenant]
    static let profiles = ["exact", "exact", "exact", "int4", "vidkv-1.5-1.58"]
    static let tokensMax = 700
    /// Sequences that nobody touches.
    static let untouched = "fill"

    init(path: String, durability: Store.Durability, random: SplitMix64, verbs: [WorkVerb], tolerance: Tolerance) throws {
        (self.path, self.durability) = (path, durability)
        (self.random, self.verbs, self.tolerance) = (random, verbs, tolerance)
        // Where opening meets a failure, the second try must succeed.
        do {
            store = try Store(opening: path, durability: durability)
        } catch let error as StoreError where tolerance.failures && Self.isOfTheSystem(error) {
            store = try Store(opening: path, durability: durability)
        }
        try unlock()
    }

    mutating func reopen() throws {
        store = try Store(opening: path, durability: durability)
        try unlock()
    }

    /// Whether the system is to blame.
    static func isOfTheSystem(_ error: StoreError) -> Bool { [.noSpace, .inputOutput, .readOnly].contains(error.code) }

    mutating func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    mutating func pick<Element>(from choices: [Element]) -> Element { choices[pick(choices.count)] }

    mutating func step() throws {
        let verb = pick(from: verbs)
        do { try take(verb) } catch let error as StoreError where isTolerated(error) {
            // Somebody gave the tenant another key.
            if [.keyRequired, .wrongKey].contains(error.code) { try unlock() }
        } catch {
            throw CrashRun.Fault(description: "\(verb): \(error)")
        }
    }

    private func isTolerated(_ error: StoreError) -> Bool {
        tolerance.failures && Self.isOfTheSystem(error) || tolerance.refuses(error.code)
    }

    /// Unlocks the encrypted tenant, if there is one, with whatever key it has by now.
    private func unlock() throws {
        for _ in 0..<1000 {
            guard let opened = try ModelKeys.unlock(store) else { return }
            if opened == 1 { return }
            guard tolerance.contention else { throw CrashRun.Fault(description: "\(opened) keys open the tenant") }
            if opened > 0 { return }
        }
        throw CrashRun.Fault(description: "no key opens the tenant")
    }

    // MARK: - Steps

    private mutating func take(_ verb: WorkVerb) throws {
        switch verb {
        case .write: try writeSequence()
        case .fork: try fork()
        case .truncate: try truncate()
        case .remove: try remove()
        case .pin: try pin()
        case .read: try read()
        case .statistics: try lookAtAll()
        case .compactStep: _ = try store.compactStep(bytesMax: 1 + pick(200_000), deadShareMin: 0)
        case .compact: try compact()
        case .sync:
            try store.sync()
            CrashJournal.say(.flushed)
        case .verify: try verify()
        case .repair: try repair()
        case .scrub: try scrub()
        case .rekey: try rekey()
        case .tenants: try changeTenants()
        case .models: try changeModels()
        case .reopen: try reopen()
        case .clock: setClock()
        case .demote:
            CrashJournal.say(.evicts)
            var options = DemotionOptions(profile: try .named("vidkv-1-1"))
            options.freeBytes = nil
            _ = try store.demote(options)
        case .quota:
            CrashJournal.say(.evicts)
            let bound = (4 + pick(8)) << 20
            let isBounded = pick(2) == 0
            try store.update { $0.quotaBytes = isBounded ? bound : nil }
        case .evict:
            CrashJournal.say(.evicts)
            let bytes = (1 + pick(4)) << 20
            let planned = try store.evictionPlan(to: bytes)
            let done = try store.evict(to: bytes)
            if !tolerance.contention, planned.pages > 0, done.pages == 0 {
                throw CrashRun.Fault(description: "\(planned.pages) pages were to be evicted, and none was")
            }
        }
    }

    private mutating func compact() throws {
        var options = CompactionOptions()
        options.targetRatio = 1
        options.unfinishedOlderThan = 0
        options.reseals = try pick(2) == 0 && ModelKeys.isEncrypted(store)
        _ = try store.compact(options)
    }

    private func verify() throws {
        let problems = try store.verify(depth: .tensors).problems
        if !mayFindDamage, !problems.isEmpty { throw CrashRun.Fault(problems) }
    }

    private func repair() throws {
        let report = try store.repair(depth: .checksums)
        if !mayFindDamage, !report.found.problems.isEmpty { throw CrashRun.Fault(report.found.problems) }
    }

    private mutating func scrub() throws {
        let report = try store.scrubStep(bytesMax: 1 + pick(1 << 20))
        if !mayFindDamage, let report, report.damaged > 0 { throw CrashRun.Fault(description: "a scrub finds damage") }
    }

    /// Relaxed, a crash of the machine may have taken images along.
    private var mayFindDamage: Bool { durability == .relaxed || tolerance.failures }

    private mutating func rekey() throws {
        guard try ModelKeys.isEncrypted(store) else { return }
        try store.rekey(tenant: ModelKeys.tenant, to: try ModelKeys.key(pick(ModelKeys.count)))
    }

    /// A tenant that holds nothing comes or goes.
    private mutating func changeTenants() throws {
        let name = "t\(pick(3))"
        if try store.tenants().contains(name) {
            try store.removeTenant(named: name)
        } else {
            try store.createTenant(named: name, key: pick(2) == 0 ? try ModelKeys.key(0) : nil)
        }
    }

    /// A model that nothing is stored of comes or goes.
    private mutating func changeModels() throws {
        let name = "m\(pick(3))"
        if try store.models().contains(where: { $0.name == name }) {
            try store.removeModel(named: name)
        } else {
            var model = PredictableCache.model
            model.name = name
            model.fingerprint = Digest(hex: String(repeating: String(name.suffix(1)), count: 64)) ?? .zero
            try store.addModel(model)
        }
    }

    /// The time of day is set: by seconds, days or for ever, back or ahead.
    private mutating func setClock() {
        #if REELKV_FAULTS
            let size = pick(from: [1, 3600, 86_400 * 400, 1 << 40, Int64.max / 2] as [Int64])
            FaultClock.offsetSeconds = pick(2) == 0 ? size : -size
        #endif
    }
}
