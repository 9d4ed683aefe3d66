import ReelKV

/// What a process says it is about to do and has done: lines on its standard output, which outlive it in the pipe.
enum CrashJournal {
    /// A sequence is about to hold these tokens, or to be gone.
    struct Step {
        var name: SequenceName
        var isPinned: Bool
        var ids: [Int32]?

        var line: String {
            "? \(name.tenant) \(name) \(isPinned ? 1 : 0) " + (ids.map { $0.map(String.init).joined(separator: ",") } ?? "-")
        }
    }

    enum Entry {
        case begins(Step)
        /// What was begun is done.
        case done
        /// Anything that nobody has pinned may be gone from here on.
        case evicts
        /// All before it is on the disk.
        case flushed
        /// The point at which the process ends.
        case dies(String)
    }

    static let done = "="
    static let evicts = "-"
    static let flushed = "+"
    static func dies(at point: StaticString) -> String { "! \(point)" }

    static func parse(_ line: Substring) -> Entry? {
        if line == done[...] { return .done }
        if line == evicts[...] { return .evicts }
        if line == flushed[...] { return .flushed }
        if line.hasPrefix("! ") { return .dies(String(line.dropFirst(2))) }
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 5, words[0] == "?", var name = SequenceName(String(words[2])) else { return nil }
        name.tenant = String(words[1])
        let ids: [Int32]? = words[4] == "-" ? nil : words[4].split(separator: ",").compactMap { Int32($0) }
        return .begins(Step(name: name, isPinned: words[3] == "1", ids: ids))
    }
}
