import Rendering
import Testing

@Suite struct TextTests {
    static let color = Terminal(isInteractive: true, showsUnicode: true, colors: .direct, width: 80)
    static let ascii = Terminal(isInteractive: true, showsUnicode: false, colors: .none, width: 80)

    // MARK: - Tables

    @Test func tableAlignsColumns() {
        var table = TextTable(.left("NAME"), .right("TOKENS"), .left("PROFILE"))
        table.append("lobby", "2,051", "exact")
        table.append("受付の映像", "705,600", "vidkv-1.5-1.58")
        table.append("e\u{301}té")
        #expect(
            table.text() == """
                NAME         TOKENS  PROFILE
                lobby         2,051  exact
                受付の映像  705,600  vidkv-1.5-1.58
                e\u{301}té

                """)
        #expect(TextTable(.left("A")).text() == "A\n")
    }

    /// A name that came from outside cannot move the cursor, or begin a new row.
    @Test func tableEscapesControlCharacters() {
        var table = TextTable(.left("NAME"), .left("B"))
        table.append("a\u{1b}[2J\nb\u{202E}", "c")
        #expect(table.text() == "NAME                      B\na\\u{1b}[2J\\u{a}b\\u{202e}  c\n")
    }

    // MARK: - Terminals

    @Test(arguments: [
        ([:], true, false, Terminal.Colors.none),
        (["TERM": "xterm-256color", "LANG": "C"], true, false, .indexed),
        (["TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_US.UTF-8"], true, true, .direct),
        (["TERM": "xterm-256color", "NO_COLOR": "1", "LANG": "de_DE.utf8"], true, true, .none),
        (["TERM": "xterm-256color", "NO_COLOR": "", "LC_ALL": "C", "LANG": "en_US.UTF-8"], true, false, .indexed),
        (["TERM": "dumb", "LANG": "en_US.UTF-8"], true, false, .none),
        (["TERM": "xterm-256color", "LANG": "en_US.UTF-8", "COLORTERM": "truecolor"], false, false, .none),
    ])
    func terminal(environment: [String: String], isTTY: Bool, showsUnicode: Bool, colors: Terminal.Colors) {
        let terminal = Terminal(isTTY: isTTY, windowWidth: nil) { environment[$0] }
        #expect(terminal.showsUnicode == showsUnicode)
        #expect(terminal.colors == colors)
        #expect(terminal.isInteractive == (isTTY && environment["TERM"].map { $0 != "dumb" } ?? false))
    }

    @Test(arguments: [(nil, nil, 100), (nil, "72", 72), (90, "72", 90), (nil, "-4", 20), (nil, "wide", 100), (9_999, nil, 1_000)])
    func terminalWidth(window: Int?, columns: String?, expected: Int) {
        let terminal = Terminal(isTTY: true, windowWidth: window) { $0 == "COLUMNS" ? columns : nil }
        #expect(terminal.width == expected)
    }

    // MARK: - Progress

    @Test func progressLine() {
        let line = ProgressLine(label: "import", totalCount: 4_096, unit: .bytes)
        #expect(
            line.text(doneCount: 1_024, elapsed: .seconds(2), terminal: Self.ascii)
                == "import  #####................   25%  1.00 KiB of 4.00 KiB  512 B/s  6.00 s left")
        #expect(
            line.text(doneCount: 4_096, elapsed: .seconds(2), terminal: Self.color)
                == "import  " + String(repeating: "━", count: 31) + "  100%  4.00 KiB of 4.00 KiB  2.00 KiB/s")
        let unknown = ProgressLine(label: "verify", totalCount: nil, unit: .count("pages"))
        #expect(
            unknown.text(doneCount: 12_000, elapsed: .seconds(4), terminal: Self.ascii) == "verify  12,000 pages  3,000 pages/s")
        #expect(unknown.text(doneCount: 0, elapsed: .zero, terminal: Self.ascii) == "verify  0 pages")
    }

    @Test func progressLineFitsAnyTerminal() {
        for width in 20...120 {
            for unicode in [false, true] {
                let terminal = Terminal(isInteractive: true, showsUnicode: unicode, colors: .none, width: width)
                for (done, total) in [(0, 0), (0, 10), (7, 10), (11, 10), (1 << 50, Int.max)] {
                    let line = ProgressLine(label: "import\n", totalCount: total, unit: .count("tokens"))
                    let text = line.text(doneCount: done, elapsed: .seconds(3), terminal: terminal)
                    #expect(text.count < width)
                    #expect(!text.contains("\n"))
                }
            }
        }
    }

    @Test func progressBarDrawsOnlyForPeople() {
        for (terminal, expected) in [(Terminal.plain, 0), (Self.color, 2)] {
            let written = Log()
            let bar = ProgressBar("import", totalCount: 10, unit: .bytes, terminal: terminal) { written.append($0) }
            bar.advance(by: 1)
            // Too soon after the first to be drawn.
            bar.advance(by: 1)
            bar.finish()
            bar.advance(by: 1)
            bar.finish()
            #expect(written.texts.count == expected)
            if expected > 0 {
                #expect(written.texts[0].hasPrefix("\rimport  "))
                #expect(written.texts[1] == "\r\u{1b}[K")
            }
        }
    }
}
