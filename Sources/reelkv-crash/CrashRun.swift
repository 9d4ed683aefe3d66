import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One store, and what it must hold.
struct CrashRun {
    struct Fault: Error, CustomStringConvertible {
        let description: String
    }

    /// What is known of a sequence: what it holds, and whether it may be gone.
    private struct Content {
        var ids: [Int32]
        var isPinned: Bool
        var mayBeGone = false
    }

    let path: String
    private var random: SplitMix64
    private let evicts: Bool
    private let relaxed: Bool
    private var contents: [SequenceName: Content] = [:]
    /// Where a sequence was being changed when a process ended: either may be.
    private var pending: CrashJournal.Step?

    init(folder: String, seed: UInt64, mib: Int) throws {
        random = SplitMix64(seed: seed)
        // Half of the stores have to keep everything.
        evicts = random.next() % 2 == 0
        relaxed = random.next() % 4 == 0
        var template = Array("\(folder)/reelkv-crash-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Fault(description: "no folder can be made in \(folder)") }
        let made = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
        path = made + "/store"
        var options = Store.Options()
        options.pageTokens = 32
        options.volumeBytesMax = mib > 0 ? 64 << 20 : 1 << 20
        let store = try Store.create(at: path, options: options)
        try store.addModel(CrashCache.model)
        try fill(store, mib: mib)
    }

    func remove() { Self.removeTree(String(path.dropLast("/store".count))) }

    /// Pages that lie there from the start; nobody touches them.
    private mutating func fill(_ store: Store, mib: Int) throws {
        var number = 0
        while try store.statistics().volumes.reduce(0, { $0 + $1.fileBytes }) < mib << 20 {
            var source = SplitMix64(seed: 77 &+ UInt64(number))
            let cache = try CrashCache((0..<4096).map { _ in Int32(source.next() % 1000) })
            let name = SequenceName.video("fill\(number)")
            let writer = try store.writer(for: name, model: CrashCache.model.name, profile: .exact)
            try cache.append(0..<cache.tokens.count, to: writer)
            try writer.finish()
            contents[name] = Content(ids: cache.tokens.ids, isPinned: true)
            number += 1
        }
    }

    // MARK: - A kill

    mutating func killOne(into outcome: inout CrashOutcome) throws {
        let seed = random.next()
        var arguments = ["work", "--store", path, "--seed", "\(seed)"]
        if random.next() % 2 == 0 {
            arguments += ["--delay", "\(random.next() % 40_000)"]
        } else {
            arguments += ["--passes", "\(1 + random.next() % 60)", "--delay", "5000000"]
        }
        if evicts { arguments.append("--evicts") }
        if relaxed { arguments.append("--relaxed") }
        let child = try ChildProcess(arguments)
        for line in child.output.split(separator: "\n") { try take(line, into: &outcome) }
        guard child.signal == SIGKILL else {
            throw Fault(description: "seed \(seed): the process ended by itself: \(child.ending)")
        }
        try look(into: &outcome, seed: seed)
    }

    mutating func take(_ line: Substring, into outcome: inout CrashOutcome) throws {
        switch CrashJournal.parse(line) {
        case .begins(let step): pending = step
        case .done:
            guard let step = pending else { return }
            contents[step.name] = step.ids.map { Content(ids: $0, isPinned: step.isPinned) }
            pending = nil
            outcome.stepsAcknowledged += 1
        case .evicts: for name in contents.keys where contents[name]?.isPinned == false { contents[name]?.mayBeGone = true }
        case .dies(let point): outcome.points[point, default: 0] += 1
        case nil: break  // the last line, cut
        }
    }

    // MARK: - What it left

    mutating func look(into outcome: inout CrashOutcome, seed: UInt64) throws {
        let clock = ContinuousClock()
        var opened: Store?
        let time = try clock.measure { opened = try Store(opening: path) }
        let milliseconds = Double(time.components.seconds) * 1000 + Double(time.components.attoseconds) / 1e15
        outcome.reopenMillisecondsMax = max(outcome.reopenMillisecondsMax, milliseconds)
        guard let store = opened else { return }
        let report = try store.verify(depth: contents.count > 40 ? .index : .checksums)
        guard report.problems.isEmpty, report.quarantined == 0 else {
            throw Fault(description: "seed \(seed): \(report.problems), \(report.quarantined) quarantined")
        }
        let names = Set(try SequenceKind.allCases.flatMap { try store.sequences($0).map(\.name) })
        try settle(names, store, seed)
        for name in names where contents[name] == nil {
            throw Fault(description: "seed \(seed): \(name) is there, and should be gone")
        }
        for (name, content) in contents {
            guard names.contains(name) else {
                guard content.mayBeGone else { throw Fault(description: "seed \(seed): \(name) of \(name.tenant) is gone") }
                contents[name] = nil
                continue
            }
            if name.name.hasPrefix("fill"), random.next() % 64 != 0 { continue }
            try compare(name, content.ids, store, seed, into: &outcome)
        }
    }

    /// What was being done when the process ended has happened or has not.
    private mutating func settle(_ names: Set<SequenceName>, _ store: Store, _ seed: UInt64) throws {
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
        guard found == step.ids || found == former?.ids else {
            throw Fault(description: "seed \(seed): \(step.name) is half done")
        }
        // Whether it is pinned now it says itself.
        contents[step.name] = Content(
            ids: found, isPinned: try store.info(of: step.name).isPinned, mayBeGone: false)
    }

    private func compare(
        _ name: SequenceName, _ ids: [Int32], _ store: Store, _ seed: UInt64, into outcome: inout CrashOutcome
    ) throws {
        let prefix = try store.prefix(of: name)
        guard try store.tokens(of: prefix).ids == ids else {
            throw Fault(description: "seed \(seed): \(name) holds \(prefix.tokenCount) tokens of \(ids.count), or others")
        }
        let cache = try CrashCache(ids)
        if let fault = try cache.fault(of: prefix, in: store) { throw Fault(description: "seed \(seed): \(name): \(fault)") }
        outcome.sequencesCompared += 1
        if prefix.isExact { outcome.exactCompared += 1 }
        // It is found by its tokens, by its own tenant and by nobody who has not stored them.
        let match = try store.longestPrefix(of: cache.tokens, model: CrashCache.model.name, tenant: name.tenant)
        guard match.tokenCount == ids.count else {
            throw Fault(description: "seed \(seed): \(match.tokenCount) of the \(ids.count) tokens of \(name) are matched")
        }
        if let fault = try cache.fault(of: match, in: store) {
            throw Fault(description: "seed \(seed): a match of \(name): \(fault)")
        }
    }

    private static func removeTree(_ path: String) {
        if let folder = opendir(path) {
            defer { closedir(folder) }
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { removeTree(path + "/" + name) }
            }
        }
        if unlink(path) != 0 { rmdir(path) }
    }
}
