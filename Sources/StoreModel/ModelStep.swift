import KVCodec
import ReelKV

/// One step of a random run, and one line of a script: `append 2 40`. Which sequence it is about is a number, and so is how far it goes:
/// what these come to depends on what there is by then, so that a script stays one when lines are left out.
struct ModelStep: Hashable, CustomStringConvertible {
    enum Verb: String, CaseIterable {
        case append, fork, truncate, remove, pin, unpin, evict, compact, demote, reopen, verify, match, restore
    }

    var verb: Verb
    /// Of the sequences that names are made for.
    var sequence: Int
    var amount: Int

    init(_ verb: Verb, _ sequence: Int, _ amount: Int) {
        (self.verb, self.sequence, self.amount) = (verb, sequence, amount)
    }

    init?(_ line: Substring) {
        let words = line.split(separator: " ")
        guard words.count == 3, let verb = Verb(rawValue: String(words[0])), let sequence = Int(words[1]), sequence >= 0,
            let amount = Int(words[2]), amount >= 0
        else { return nil }
        self.init(verb, sequence, amount)
    }

    var description: String { "\(verb) \(sequence) \(amount)" }

    static func random(_ count: Int, seed: UInt64) -> [ModelStep] {
        var random = SeededGenerator(seed)
        let often: [Verb] = Verb.allCases + [.append, .append, .append, .append, .match, .restore]
        return (0..<count).map { _ in
            ModelStep(
                often[Int.random(in: 0..<often.count, using: &random)], Int.random(in: 0..<12, using: &random),
                Int.random(in: 0..<150, using: &random))
        }
    }
}

/// A store and the plain idea of what it holds: after each step the two must agree.
final class ModelRun {
    struct Disagreement: Error, CustomStringConvertible {
        var description: String
    }

    private struct Content {
        var ids: [Int32]
        var isPinned: Bool
    }

    private let path: String
    private var store: Store
    private var contents: [SequenceName: Content] = [:]
    /// A fault of the model's own, for the tests of shrinking: it takes a truncation for one to half as many tokens.
    private let isWrong: Bool
    private static let model = ModelSpec.small()

    init(in folder: TemporaryFolder, isWrong: Bool = false) throws {
        path = folder.path + "/store"
        store = try makeStore(in: folder, Self.model, pageTokens: 32, volumeBytesMax: 1 << 20)
        self.isWrong = isWrong
    }

    /// Of the first six numbers, half are one tenant's and half another's; every third is a video.
    private func name(_ number: Int) -> SequenceName {
        SequenceName(number % 3 == 0 ? .video : .session, "n\(number % 6)", tenant: number % 12 < 6 ? "a" : "b")
    }

    func take(_ step: ModelStep) throws {
        let name = name(step.sequence)
        switch step.verb {
        case .append: try append(step.amount, to: name, step)
        case .fork: try fork(name, step)
        case .truncate: try truncate(name, step)
        case .remove:
            try expectingFound(name) { try store.remove(name) }
            contents[name] = nil
        case .pin, .unpin:
            try expectingFound(name) { try store.setPinned(step.verb == .pin, name) }
            contents[name]?.isPinned = step.verb == .pin
        case .evict:
            _ = try store.evict(to: (1 + step.amount % 3) << 20)
            try forgetEvicted()
        case .demote: _ = try store.demote(DemotionOptions(profile: try .named("vidkv-1-1")))
        case .compact:
            var options = CompactionOptions()
            options.targetRatio = 1
            _ = try store.compact(options)
        case .reopen: store = try Store(opening: path)
        case .verify:
            let problems = try store.verify().problems
            guard problems.isEmpty else { throw Disagreement(description: "verify finds \(problems[0].message)") }
        case .match, .restore: try checkContent(of: name)
        }
        try checkNames()
        try checkContent(of: name)
    }

    // MARK: - Steps

    private func append(_ amount: Int, to name: SequenceName, _ step: ModelStep) throws {
        let base = name.kind == .session ? contents[name]?.ids ?? [] : []
        // Few different tokens, so that sequences share their beginnings.
        let added = (0..<1 + amount).map { Int32(($0 * (1 + step.sequence % 2) + base.count) % 3) }
        let cache = SyntheticCache(Self.model, .valid(base + added))
        let profile = try Profile.named(["exact", "exact", "int4"][amount % 3])
        let start =
            contents[name] == nil
            ? try store.longestPrefix(of: cache.tokens, model: "small", tenant: name.tenant) : nil
        let writer = try store.writer(
            for: name, model: "small", profile: profile, startingFrom: name.kind == .session ? start : nil, replacing: true)
        try cache.append(writer.tokenCount..<cache.tokens.count, to: writer, chunk: 50)
        try writer.finish()
        contents[name] = Content(ids: base + added, isPinned: contents[name]?.isPinned ?? (name.kind == .video))
    }

    private func fork(_ name: SequenceName, _ step: ModelStep) throws {
        let target = SequenceName.session("f\(step.amount % 2)", tenant: name.tenant)
        guard let source = contents[name] else { return try expectingFound(name) { try store.fork(name, to: target.name) } }
        let count = step.amount % (source.ids.count + 1)
        do {
            try store.fork(name, to: target.name, count: count)
        } catch let error as StoreError where error.code == .alreadyExists && contents[target] != nil {
            return
        }
        guard contents[target] == nil else { throw Disagreement(description: "a fork takes the place of \(target)") }
        contents[target] = Content(ids: Array(source.ids[..<count]), isPinned: false)
    }

    private func truncate(_ name: SequenceName, _ step: ModelStep) throws {
        guard name.kind == .session else { return }
        let count = step.amount % ((contents[name]?.ids.count ?? 0) + 1)
        try expectingFound(name) { try store.truncate(session: name.name, tenant: name.tenant, to: count) }
        if let content = contents[name] { contents[name]?.ids = Array(content.ids[..<(isWrong ? count / 2 : count)]) }
    }

    /// Runs what must fail exactly where nothing has the name.
    private func expectingFound(_ name: SequenceName, _ body: () throws -> Void) throws {
        do { try body() } catch let error as StoreError where error.code == .notFound {
            if contents[name] != nil { throw Disagreement(description: "\(name.tenant) \(name) is not found") }
            return
        }
        if contents[name] == nil { throw Disagreement(description: "\(name.tenant) \(name) is found") }
    }

    /// Whatever was not pinned may be gone, as a whole.
    private func forgetEvicted() throws {
        let left = Set(try SequenceKind.allCases.flatMap { try store.sequences($0).map(\.name) })
        contents = contents.filter { $0.value.isPinned || left.contains($0.key) }
    }

    // MARK: - What must hold

    private func checkNames() throws {
        let infos = try SequenceKind.allCases.flatMap { try store.sequences($0) }
        let stored = Dictionary(uniqueKeysWithValues: infos.map { ($0.name, "\($0.tokenCount) \($0.isPinned)") })
        let expected = contents.mapValues { "\($0.ids.count) \($0.isPinned)" }
        guard stored == expected else { throw Disagreement(description: "the store lists \(stored), not \(expected)") }
    }

    /// The whole sequence is there, its tokens match, every shorter prefix does too, and what comes back is what was stored.
    private func checkContent(of name: SequenceName) throws {
        guard let content = contents[name] else { return }
        let prefix = try store.prefix(of: name)
        guard prefix.tokenCount == content.ids.count, try store.tokens(of: prefix).ids == content.ids else {
            throw Disagreement(description: "\(name.tenant) \(name) has other tokens")
        }
        let tokens = TokenSequence.valid(content.ids)
        for count in [content.ids.count, content.ids.count / 2] {
            let match = try store.longestPrefix(of: tokens[0..<count], model: "small", tenant: name.tenant)
            guard match.tokenCount == count else {
                throw Disagreement(description: "\(match.tokenCount) of \(count) tokens of \(name) match")
            }
        }
        if content.ids.isEmpty { return }
        let found = try restored(store, prefix)
        let cache = SyntheticCache(Self.model, tokens)
        for (layer, bytes) in found.enumerated() where prefix.isExact {
            guard bytes == cache.bytes(layer: layer, 0..<tokens.count) else {
                throw Disagreement(description: "\(name.tenant) \(name) is exact, and has other tensors in layer \(layer)")
            }
        }
        guard try restored(store, prefix) == found else { throw Disagreement(description: "two restores of \(name) differ") }
    }
}

/// What makes a run fail, made as short as can be.
enum ModelScript {
    /// - Returns: what is wrong after these steps; nil when nothing is.
    static func failure(of steps: [ModelStep], isWrong: Bool = false) -> String? {
        let folder = TemporaryFolder()
        do {
            let run = try ModelRun(in: folder, isWrong: isWrong)
            for step in steps { try run.take(step) }
            return nil
        } catch { return "\(error)" }
    }

    /// Leaves steps out, first many at once (delta debugging: Zeller and Hildebrandt, 2002), then makes their numbers smaller, for as long
    /// as the run still fails.
    static func shrunk(_ steps: [ModelStep], fails: ([ModelStep]) -> Bool) -> [ModelStep] {
        var steps = steps
        var size = max(1, steps.count / 2)
        while true {
            var start = 0
            var isShorter = false
            while start < steps.count {
                var fewer = steps
                fewer.removeSubrange(start..<min(steps.count, start + size))
                if fails(fewer) { (steps, isShorter) = (fewer, true) } else { start += size }
            }
            if size == 1, !isShorter { break }
            size = max(1, size / 2)
        }
        for index in steps.indices {
            for field in [\ModelStep.sequence, \ModelStep.amount] {
                while steps[index][keyPath: field] > 0 {
                    var smaller = steps
                    smaller[index][keyPath: field] /= 2
                    guard fails(smaller) else { break }
                    steps = smaller
                }
            }
        }
        return steps
    }

    static func text(_ steps: [ModelStep]) -> String { steps.map { "\($0)\n" }.joined() }

    static func parse(_ text: String) -> [ModelStep]? {
        let lines = text.split(separator: "\n")
        let steps = lines.compactMap { ModelStep($0) }
        return steps.count == lines.count ? steps : nil
    }
}
