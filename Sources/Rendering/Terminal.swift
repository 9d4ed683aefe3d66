#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What the place that text goes to can show.
public struct Terminal: Sendable, Hashable {
    public enum Colors: Sendable, Hashable {
        case none
        /// The 256 colours of xterm.
        case indexed
        /// 24 bits each.
        case direct
    }

    /// Whether a person looks at it, as against a file or a pipe.
    public var isInteractive: Bool
    /// Whether it shows block characters and other Unicode.
    public var showsUnicode: Bool
    public var colors: Colors
    /// Columns of text.
    public var width: Int

    public init(isInteractive: Bool, showsUnicode: Bool, colors: Colors, width: Int) {
        self.isInteractive = isInteractive
        self.showsUnicode = showsUnicode
        self.colors = colors
        self.width = width
    }

    /// A file or a pipe: ASCII of 100 columns.
    public static let plain = Terminal(isInteractive: false, showsUnicode: false, colors: .none, width: 100)

    /// Judges by the environment's conventions: `NO_COLOR` (https://no-color.org), `TERM`, `COLORTERM`, `LC_ALL`, `LC_CTYPE`,
    /// `LANG`, `COLUMNS`.
    ///
    /// - Parameters:
    ///   - isTTY: whether the descriptor is a terminal.
    ///   - windowWidth: columns that the terminal itself reports, if it does.
    ///   - environment: value of an environment variable.
    public init(isTTY: Bool, windowWidth: Int?, environment: (String) -> String?) {
        let term = environment("TERM") ?? ""
        let isDumb = term == "dumb" || term.isEmpty
        let wantsNoColor = environment("NO_COLOR").map { !$0.isEmpty } ?? false
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap(environment).first { !$0.isEmpty } ?? ""
        let width = windowWidth ?? environment("COLUMNS").flatMap { Int($0) } ?? Terminal.plain.width
        isInteractive = isTTY && !isDumb
        showsUnicode = isInteractive && (locale.uppercased().contains("UTF-8") || locale.uppercased().contains("UTF8"))
        colors =
            if !isInteractive || wantsNoColor {
                .none
            } else if ["truecolor", "24bit"].contains(environment("COLORTERM") ?? "") {
                .direct
            } else {
                .indexed
            }
        self.width = min(max(width, 20), 1_000)
    }

    public static func standardOutput() -> Terminal { Terminal(descriptor: STDOUT_FILENO) }
    public static func standardError() -> Terminal { Terminal(descriptor: STDERR_FILENO) }

    private init(descriptor: CInt) {
        var size = winsize()
        let known = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        self.init(isTTY: isatty(descriptor) == 1, windowWidth: known ? Int(size.ws_col) : nil) { name in
            getenv(name).map { String(cString: $0) }
        }
    }
}
