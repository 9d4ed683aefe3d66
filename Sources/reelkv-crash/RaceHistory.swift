import ReelKV

/// What several processes said they did to the sequences of a store, put together.
struct RaceHistory {
    private struct Change {
        /// nil where the sequence was removed.
        var ids: [Int32]?
        var begin: UInt64
        /// When it was acknowledged; nil where the process ended before.
        var end: UInt64?
    }

    private var changes: [SequenceName: [Change]] = [:]
    /// Whether what nobody has pinned may be gone.
    private var mayBeGone = false
    private(set) var acknowledged = 0

    /// What is there before the processes begin.
    mutating func begin(with name: SequenceName, ids: [Int32]) {
        changes[name, default: []].append(Change(ids: ids, begin: 0, end: 0))
    }

    mutating func add(_ lines: [Substring]) {
        var pending: (name: SequenceName, index: Int)?
        for (time, entry) in lines.compactMap(CrashJournal.parse) {
            switch entry {
            case .begins(let step):
                let index = changes[step.name, default: []].count
                changes[step.name, default: []].append(Change(ids: step.ids, begin: time, end: nil))
                pending = (step.name, index)
            case .done:
                if let pending { changes[pending.name]?[pending.index].end = time }
                acknowledged += 1
            case .refused: if let pending { changes[pending.name]?.remove(at: pending.index) }
            case .evicts: mayBeGone = true
            case .flushed, .heldUp, .dies: break
            }
        }
    }

    var names: Set<SequenceName> { Set(changes.keys) }

    /// Whether a sequence may be this in the end: some change made it so, and no change that was acknowledged began after that one had been.
    ///
    /// - Parameter ids: nil where it is not there.
    func allows(_ ids: [Int32]?, of name: SequenceName) -> Bool {
        let changes = changes[name] ?? []
        if ids == nil, mayBeGone || !changes.contains(where: { $0.begin == 0 }) && !changes.contains(where: isSettled) {
            return true
        }
        let lastBegin = changes.filter(isSettled).map(\.begin).max() ?? 0
        return changes.contains { change in
            if let end = change.end, end < lastBegin { return false }
            return change.ids == ids || isCut(ids, as: change.ids)
        }
    }

    private func isSettled(_ change: Change) -> Bool { change.end != nil }

    /// A fork and a truncation take the first tokens of what they find, which may be something else than was seen before.
    private func isCut(_ ids: [Int32]?, as expected: [Int32]?) -> Bool {
        guard let ids, ids.count == expected?.count else { return false }
        return changes.values.joined().contains { $0.ids?.starts(with: ids) == true }
    }
}
