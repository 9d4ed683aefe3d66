import ArgumentParser

/// What a process may do to a store.
enum WorkVerb: String, CaseIterable, ExpressibleByArgument {
    case write, fork, truncate, remove, pin
    case read, statistics
    case compactStep = "compact-step"
    case compact, sync, verify, repair, scrub
    case rekey, tenants, models, reopen, clock
    case demote, quota, evict

    /// Whether what nobody has pinned may be gone after it.
    var evicts: Bool { [.demote, .quota, .evict].contains(self) }

    /// How often it is chosen where nothing else is said.
    var weight: Int { self == .write ? 10 : self == .read ? 2 : 1 }

    /// Each as often as its weight.
    static func choices(evicting: Bool) -> [WorkVerb] {
        allCases.filter { evicting || !$0.evicts }.flatMap { Array(repeating: $0, count: $0.weight) }
    }

    static func list(_ text: String) throws -> [WorkVerb] {
        try text.split(separator: ",").map { word in
            guard let verb = WorkVerb(rawValue: String(word)) else {
                throw ValidationError("'\(word)' is none of \(allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return verb
        }
    }
}
