import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What a process says it is about to do and has done: lines on its standard output, which outlive it, each with its time.
enum CrashJournal {
    /// A sequence is about to hold these tokens, or to be gone.
    struct Step: Equatable {
        var name: SequenceName
        var isPinned: Bool
        var ids: [Int32]?

        var text: String {
            "? \(name.tenant) \(name) \(isPinned ? 1 : 0) " + (ids.map { $0.map(String.init).joined(separator: ",") } ?? "-")
        }
    }

    enum Entry: Equatable {
        case begins(Step)
        /// What was begun is done.
        case done
        /// What was begun has not happened.
        case refused
        /// Anything that nobody has pinned may be gone from here on.
        case evicts
        /// All before it is on the disk.
        case flushed
        /// The store could not be opened: another process is stopped where it opens it.
        case heldUp
        /// The point at which the process ends or is stopped.
        case dies(String)

        var text: String {
            switch self {
            case .begins(let step): step.text
            case .done: "="
            case .refused: "x"
            case .evicts: "-"
            case .flushed: "+"
            case .heldUp: "~"
            case .dies(let point): "! \(point)"
            }
        }

        init?(_ text: Substring) {
            switch text {
            case "=": self = .done
            case "x": self = .refused
            case "-": self = .evicts
            case "+": self = .flushed
            case "~": self = .heldUp
            default:
                if text.hasPrefix("! ") {
                    self = .dies(String(text.dropFirst(2)))
                    return
                }
                let words = text.split(separator: " ", omittingEmptySubsequences: false)
                guard words.count == 5, words[0] == "?", var name = SequenceName(String(words[2])) else { return nil }
                name.tenant = String(words[1])
                let ids: [Int32]? = words[4] == "-" ? nil : words[4].split(separator: ",").compactMap { Int32($0) }
                self = .begins(Step(name: name, isPinned: words[3] == "1", ids: ids))
            }
        }
    }

    /// One line; whole in the file or not at all.
    static func say(_ entry: Entry) {
        FileHandleOutput.write("\(nanoseconds()) \(entry.text)\n")
    }

    /// - Returns: nil for a line that was cut.
    static func parse(_ line: Substring) -> (nanoseconds: UInt64, entry: Entry)? {
        guard let space = line.firstIndex(of: " "), let time = UInt64(line[..<space]),
            let entry = Entry(line[line.index(after: space)...])
        else { return nil }
        return (time, entry)
    }

    /// Of a clock that all processes share.
    private static func nanoseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }
}
