import KVCodec
import ReelKV

/// A store that several have open, and the plain idea of what it holds: after each step the two must agree.
package final class ModelRun {
    package struct Disagreement: Error, CustomStringConvertible {
        package var description: String

        package init(description: String) { self.description = description }
    }

    private struct Content {
        var ids: [Int32]
        var isPinned: Bool
    }

    /// A writer that was left open.
    private struct OpenWriter {
        var name: SequenceName
        var ids: [Int32]
        /// Whether somebody changed the sequence since.
        var isContested = false
        /// Whether pages may have been evicted since.
        var mayLackPages = false
    }

    private let actors: [any ModelActor]
    private var contents: [SequenceName: Content] = [:]
    private var writers: [Int: OpenWriter] = [:]
    /// Whether a writer went without ending what it wrote. That may be matched, and goes some time, also from under who goes on from it.
    private var hasAbandoned = false
    /// What somebody has left a writer of, at any time.
    private var begun: Set<SequenceName> = []
    private var hasQuota = false
    /// A fault of the model's own, for the tests of shrinking: it takes a truncation for one to half as many tokens.
    private let isWrong: Bool

    /// Makes a store that all of `actors` then open: one of two tenants is encrypted.
    package init(at path: String, isWrong: Bool = false, actors: () throws -> [any ModelActor]) throws {
        var options = Store.Options()
        options.pageTokens = 32
        options.volumeBytesMax = 1 << 20
        let store = try Store.create(at: path, options: options)
        try store.addModel(PredictableCache.model)
        try store.createTenant(named: ModelKeys.tenant, key: ModelKeys.key(0))
        self.actors = try actors()
        self.isWrong = isWrong
        try unlockAll(with: 0)
    }

    private var key = 0

    private func unlockAll(with number: Int) throws {
        key = number
        for index in actors.indices { try expectDone(try actors[index].perform(.unlock(number))) }
    }

    /// Of the first six numbers, half are one tenant's and half another's; every third is a video.
    private func name(_ number: Int) -> SequenceName {
        SequenceName(
            number % 3 == 0 ? .video : .session, "n\(number % 6)",
            tenant: number % 12 < 6 ? Store.defaultTenant : ModelKeys.tenant)
    }

    package func take(_ step: ModelStep) throws {
        do { try takeAndCheck(step) } catch let error as Disagreement {
            throw Disagreement(description: "\(error) (at '\(step)')")
        }
    }

    private func takeAndCheck(_ step: ModelStep) throws {
        let (name, actor) = (name(step.sequence), step.actor % actors.count)
        switch step.verb {
        case .append: try append(step, to: name, by: actor, isFinished: true)
        case .begin: try append(step, to: name, by: actor, isFinished: false)
        case .finish: try finish(actor)
        case .fork: try fork(name, step, by: actor)
        case .truncate: try truncate(name, step, by: actor)
        case .remove:
            let reply = try actors[actor].perform(.remove(name))
            // what is being written goes with its name, also where there is nothing else of it
            if contents[name] != nil || reply != .done || !begun.contains(name) { try expectingFound(name, reply) }
            if begun.contains(name) { hasAbandoned = true }
            change(name, to: nil)
        case .pin, .unpin:
            let isPinned = step.verb == .pin
            try expectingFound(name, try actors[actor].perform(.pin(name, isPinned)))
            if var content = contents[name] {
                content.isPinned = isPinned
                change(name, to: content)
            }
        case .match, .restore: break  // what is done after each step
        case .evict:
            try expectDone(try actors[actor].perform(.evict(bytes: (1 + step.amount % 3) << 20)))
            try forgetEvicted()
        case .quota:
            hasQuota = step.amount % 3 > 0
            try expectDone(try actors[actor].perform(.quota(bytes: hasQuota ? (2 + step.amount % 3) << 20 : 0)))
            try forgetEvicted()
        case .demote: try expectDone(try actors[actor].perform(.demote))
        case .compact: try expectDone(try actors[actor].perform(.compact))
        case .rekey:
            let number = step.amount % ModelKeys.count
            try expectDone(try actors[actor].perform(.rekey(number)))
            try unlockAll(with: number)
            for index in writers.keys where writers[index]?.name.tenant == ModelKeys.tenant { writers[index]?.isContested = true }
        case .reopen:
            try actors[actor].restart(isKilled: step.amount % 2 == 0)
            if writers.removeValue(forKey: actor) != nil { hasAbandoned = true }
            try expectDone(try actors[actor].perform(.unlock(key)))
        case .verify: try expectDone(try actors[actor].perform(.verify))
        }
        if hasAbandoned { for index in writers.keys { writers[index]?.mayLackPages = true } }
        try check(name, by: (actor + 1) % actors.count)
    }

    /// At the end each of them finds everything.
    package func finish() throws {
        for actor in actors.indices {
            for name in contents.keys.sorted(by: { "\($0.tenant)\($0)" < "\($1.tenant)\($1)" }) { try check(name, by: actor) }
        }
        try expectDone(try actors[0].perform(.verify))
    }

    // MARK: - Steps

    private func append(_ step: ModelStep, to name: SequenceName, by actor: Int, isFinished: Bool) throws {
        // whoever left a writer open goes on with it first
        if !isFinished { try finish(actor) }
        let base = name.kind == .session ? contents[name]?.ids ?? [] : []
        // Few different tokens, so that sequences share their beginnings.
        let ids = base + (0..<1 + step.amount).map { Int32(($0 * (1 + step.sequence % 2) + base.count) % 3) }
        let profile = ["exact", "exact", "int4"][step.amount % 3]
        let reply = try actors[actor].perform(.write(name, profile: profile, ids: ids, isFinished: isFinished))
        if hasQuota {
            try forgetEvicted()
            if case .refused("quota-exceeded", _) = reply { return }
        }
        try expectDone(reply)
        if isFinished {
            change(name, to: Content(ids: ids, isPinned: contents[name]?.isPinned ?? (name.kind == .video)))
        } else {
            writers[actor] = OpenWriter(name: name, ids: ids)
            begun.insert(name)
        }
    }

    private func finish(_ actor: Int) throws {
        guard let writer = writers.removeValue(forKey: actor) else { return }
        let reply = try actors[actor].perform(.finish)
        if hasQuota { try forgetEvicted() }
        switch reply {
        case .done:
            // A session is never taken from under whoever changed it meanwhile.
            let former = contents[writer.name]
            let isLost = writer.name.kind == .session && former.map { !writer.ids.starts(with: $0.ids) } == true
            if writer.isContested, isLost { throw Disagreement(description: "\(writer.name) lost what another wrote meanwhile") }
            change(
                writer.name, to: Content(ids: writer.ids, isPinned: former?.isPinned ?? (writer.name.kind == .video)))
        case .refused(let code, _):
            let isFair =
                writer.isContested && ["conflict", "not-found", "key-required"].contains(code)
                || (writer.mayLackPages || hasQuota)
                    && ["conflict", "page-unavailable", "quota-exceeded", "not-found"].contains(code)
            if !isFair { try expectDone(reply) }
            hasAbandoned = true
        default: try expectDone(reply)
        }
    }

    private func fork(_ name: SequenceName, _ step: ModelStep, by actor: Int) throws {
        let target = SequenceName.session("f\(step.amount % 2)", tenant: name.tenant)
        let count = step.amount % ((contents[name]?.ids.count ?? 0) + 1)
        let reply = try actors[actor].perform(.fork(name, to: target.name, count: count))
        if contents[name] != nil, contents[target] != nil {
            if case .refused("already-exists", _) = reply { return }
            throw Disagreement(description: "a fork takes the place of \(target): \(reply.line)")
        }
        try expectingFound(name, reply)
        if let source = contents[name] { change(target, to: Content(ids: Array(source.ids[..<count]), isPinned: false)) }
    }

    private func truncate(_ name: SequenceName, _ step: ModelStep, by actor: Int) throws {
        guard name.kind == .session else { return }
        let count = step.amount % ((contents[name]?.ids.count ?? 0) + 1)
        try expectingFound(name, try actors[actor].perform(.truncate(name, count: count)))
        guard var content = contents[name] else { return }
        content.ids = Array(content.ids[..<(isWrong ? count / 2 : count)])
        change(name, to: content)
    }

    private func change(_ name: SequenceName, to content: Content?) {
        let former = contents[name]
        contents[name] = content
        // Pages go with the last sequence that has them, also from under a writer that goes on from them.
        let isShorter = former.map { content?.ids.starts(with: $0.ids) != true } ?? false
        for index in writers.keys where writers[index]?.name.tenant == name.tenant {
            if writers[index]?.name == name { writers[index]?.isContested = true }
            if isShorter { writers[index]?.mayLackPages = true }
        }
    }

    // MARK: - What must hold

    private func expectDone(_ reply: ModelOrder.Reply) throws {
        guard reply == .done else { throw Disagreement(description: reply.line) }
    }

    /// Of what must fail exactly where nothing has the name.
    private func expectingFound(_ name: SequenceName, _ reply: ModelOrder.Reply) throws {
        if case .refused("not-found", _) = reply {
            if contents[name] != nil { throw Disagreement(description: "\(name.tenant) \(name) is not found") }
            return
        }
        try expectDone(reply)
        if contents[name] == nil { throw Disagreement(description: "\(name.tenant) \(name) is found") }
    }

    private func listed(by actor: Int) throws -> [SequenceName: String] {
        let reply = try actors[actor].perform(.list)
        guard case .listed(let names) = reply else { throw Disagreement(description: reply.line) }
        return names
    }

    /// Whatever was not pinned may be gone, as a whole.
    private func forgetEvicted() throws {
        let left = try listed(by: 0)
        for (name, content) in contents where !content.isPinned && left[name] == nil { change(name, to: nil) }
        for index in writers.keys { writers[index]?.mayLackPages = true }
    }

    /// All names are there, and one sequence is as it was stored, to somebody else than who changed it.
    private func check(_ name: SequenceName, by actor: Int) throws {
        let stored = try listed(by: actor)
        let expected = contents.mapValues { "\($0.ids.count),\($0.isPinned)" }
        guard stored == expected else { throw Disagreement(description: "the store lists \(stored), not \(expected)") }
        if let content = contents[name] { try expectDone(try actors[actor].perform(.check(name, ids: content.ids))) }
    }
}
