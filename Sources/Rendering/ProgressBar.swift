import Locking

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// How far a long task is, on one line of standard error that is drawn anew.
///
/// Nothing is written unless standard error is a terminal. Any thread may report.
///
/// ```
/// import  ━━━━━━━━━━━╸            46%  18.6/40.5 GiB  612 MiB/s  36.8 s left
/// ```
public final class ProgressBar: Sendable {
    private struct State {
        var doneCount = 0
        var drawn: ContinuousClock.Instant?
        var finished = false
    }

    private let line: ProgressLine
    private let terminal: Terminal
    private let start = ContinuousClock.now
    private let state = Mutex(State())
    private let output: @Sendable (String) -> Void

    /// - Parameters:
    ///   - label: what is being done, one word.
    ///   - totalCount: units of the whole task, or nil where that is not known.
    public convenience init(_ label: String, totalCount: Int?, unit: ProgressLine.Unit) {
        self.init(label, totalCount: totalCount, unit: unit, terminal: .standardError()) { text in
            _ = text.utf8.withContiguousStorageIfAvailable { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        }
    }

    /// - Parameter output: takes the text for the terminal.
    public init(
        _ label: String, totalCount: Int?, unit: ProgressLine.Unit, terminal: Terminal,
        output: @escaping @Sendable (String) -> Void
    ) {
        line = ProgressLine(label: label, totalCount: totalCount, unit: unit)
        self.terminal = terminal
        self.output = output
    }

    /// Counts `count` more units as done.
    public func advance(by count: Int) {
        guard terminal.isInteractive else { return }
        let now = ContinuousClock.now
        state.withLock { state in
            state.doneCount += count
            guard !state.finished, state.drawn.map({ now - $0 >= .milliseconds(100) }) ?? true else { return }
            state.drawn = now
            output("\r" + line.text(doneCount: state.doneCount, elapsed: now - start, terminal: terminal) + "\u{1b}[K")
        }
    }

    /// Takes the line away. Whatever is advanced later is not shown.
    public func finish() {
        state.withLock { state in
            if state.drawn != nil, !state.finished { output("\r\u{1b}[K") }
            state.finished = true
        }
    }

    deinit {
        finish()
    }
}

/// The text of a progress bar: a pure function of how far the task is.
public struct ProgressLine: Sendable {
    public enum Unit: Sendable {
        case bytes
        /// A count of things called so: "tokens", "pages".
        case count(String)
    }

    public let label: String
    public let totalCount: Int?
    public let unit: Unit

    public init(label: String, totalCount: Int?, unit: Unit) {
        self.label = TextWidth.printable(label)
        self.totalCount = totalCount
        self.unit = unit
    }

    /// One line without its end, not wider than the terminal.
    public func text(doneCount: Int, elapsed: Duration, terminal: Terminal) -> String {
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        let rate = seconds > 0 ? Double(doneCount) / seconds : 0
        var parts: [String] = []
        if let totalCount, totalCount > 0 {
            let fraction = min(1, Double(doneCount) / Double(totalCount))
            parts.append(TextWidth.padded(Format.percentage(fraction, places: 0), to: 4, alignRight: true))
            parts.append("\(amount(doneCount)) of \(amount(totalCount))")
        } else {
            parts.append(amount(doneCount))
        }
        if rate >= 1 { parts.append(amount(Int(min(rate, 1e18))) + "/s") }
        if let totalCount, rate > 0, doneCount < totalCount {
            parts.append(Format.duration(seconds: (Double(totalCount - doneCount) / rate).rounded(.up)) + " left")
        }
        let figures = parts.joined(separator: "  ")
        // One column stays free: a character in the last one makes some terminals wrap.
        let room = terminal.width - 1 - TextWidth.columns(label) - TextWidth.columns(figures) - 4
        guard let totalCount, totalCount > 0, room >= 8 else {
            return TextWidth.cut("\(label)  \(figures)", to: terminal.width - 1)
        }
        let bar = bar(min(1, Double(doneCount) / Double(totalCount)), width: min(room, 40), unicode: terminal.showsUnicode)
        return "\(label)  \(bar)  \(figures)"
    }

    private func amount(_ count: Int) -> String {
        switch unit {
        case .bytes: Format.bytes(count)
        case .count(let name): "\(Format.count(count)) \(name)"
        }
    }

    private func bar(_ fraction: Double, width: Int, unicode: Bool) -> String {
        guard unicode else {
            let full = Int(fraction * Double(width))
            return String(repeating: "#", count: full) + String(repeating: ".", count: width - full)
        }
        let halves = Int(fraction * Double(width * 2))
        let full = halves / 2
        let half = halves % 2
        return String(repeating: "━", count: full) + (half == 1 ? "╸" : "")
            + String(repeating: " ", count: width - full - half)
    }
}
