extension HeatMap {
    /// The map for a terminal.
    ///
    /// With colours and Unicode, each character holds two rows (`▀`: its upper half in one colour, the lower in the other); with
    /// colours alone, a coloured space holds one; without colours, one of ten ASCII characters of growing density does.
    ///
    /// - Parameter lineCountMax: lines for the matrix itself; title, marks, labels and legend come on top.
    public func text(terminal: Terminal, lineCountMax: Int = 32) -> String {
        let rowsPerLine = terminal.colors != .none && terminal.showsUnicode ? 2 : 1
        let gutter = max(TextWidth.columns(rowName), String(firstRow + rowCount - 1).count) + 1
        // Two columns on the right for marks, one free: a character in the last column makes some terminals wrap.
        let room = max(1, terminal.width - gutter - 3)
        let map = pooled(rowCountMax: lineCountMax * rowsPerLine, columnCountMax: room)
        // Short sequences are stretched, so that a column can be seen.
        let stretch = min(4, max(1, room / map.columns.count))
        let painter = Painter(terminal: terminal, axis: axis, map: map, stretch: stretch)

        var lines: [String] = []
        if !title.isEmpty { lines.append(TextWidth.cut(TextWidth.printable(title), to: terminal.width - 1)) }
        let head = TextWidth.padded(TextWidth.cut(rowName, to: gutter - 1), to: gutter - 1, alignRight: true) + " "
        lines.append(painter.colored(head, Palette.faint) + painter.columnMarks())
        let labels = rowLabels(map, rowsPerLine: rowsPerLine)
        for (line, row) in stride(from: 0, to: map.rows.count, by: rowsPerLine).enumerated() {
            let label = TextWidth.padded(labels[line], to: gutter - 1, alignRight: true) + " "
            lines.append(painter.colored(label, Palette.faint) + painter.cells(from: row, count: rowsPerLine))
        }
        lines.append(painter.colored(columnLabels(map, gutter: gutter, stretch: stretch), Palette.faint))
        lines.append(TextWidth.padded("", to: gutter) + painter.legend(self))
        return lines.map { trimmedRight($0) + "\n" }.joined()
    }

    /// What stands left of each line: numbers at even distances.
    private func rowLabels(_ map: PooledMap, rowsPerLine: Int) -> [String] {
        let lineCount = (map.rows.count + rowsPerLine - 1) / rowsPerLine
        var result = Array(repeating: "", count: lineCount)
        let ticks = Axis.wholeTicks(firstRow..<firstRow + rowCount, countMax: max(1, lineCount / 3), isBinary: true)
        for tick in ticks {
            guard let row = map.rows.firstIndex(where: { $0.contains(tick - firstRow) }) else { continue }
            result[row / rowsPerLine] = String(tick)
        }
        return result
    }

    /// The line below the map: numbers where they belong, as long as they do not touch, then what they count.
    private func columnLabels(_ map: PooledMap, gutter: Int, stretch: Int) -> String {
        let width = map.columns.count * stretch
        var line = TextWidth.padded("", to: gutter)
        let ticks = Axis.wholeTicks(firstColumn..<firstColumn + columnCount, countMax: max(1, width / 10), isBinary: false)
        for tick in ticks {
            guard let column = map.columns.firstIndex(where: { $0.contains(tick - firstColumn) }) else { continue }
            let position = gutter + column * stretch
            if line.count < position || line.count == gutter && position == gutter {
                line = TextWidth.padded(line, to: position) + String(tick)
            }
        }
        return line + "  " + columnName
    }
}

/// Turns cells into characters.
private struct Painter {
    let terminal: Terminal
    let axis: Axis
    let map: PooledMap
    let stretch: Int

    /// From nothing to much.
    private static let ramp = Array(" .:-=+*#%@")
    private static let reset = "\u{1b}[0m"

    func colored(_ text: String, _ color: RGB) -> String {
        terminal.colors == .none ? text : color.escape(terminal.colors) + text + Painter.reset
    }

    /// One line of the map: `count` rows from `row` on, and the mark behind them.
    func cells(from row: Int, count: Int) -> String {
        var result = ""
        var lastColors = ""
        for column in map.columns.indices {
            let colors: String
            let character: String
            if terminal.colors == .none {
                colors = ""
                character = ascii(map.values[row * map.columns.count + column])
            } else if count == 1 {
                colors = map.color(row, column, axis).escape(terminal.colors, background: true)
                character = " "
            } else {
                let hasLower = row + 1 < map.rows.count
                let lower = hasLower ? map.color(row + 1, column, axis).escape(terminal.colors, background: true) : "\u{1b}[49m"
                colors = map.color(row, column, axis).escape(terminal.colors) + lower
                character = "▀"
            }
            if colors != lastColors { result += colors }
            lastColors = colors
            result += String(repeating: character, count: stretch)
        }
        if terminal.colors != .none { result += Painter.reset }
        let isMarked = map.markedRows[row..<min(row + count, map.rows.count)].contains(true)
        return isMarked ? result + " " + colored(rowMark, Palette.rowMark) : result
    }

    func columnMarks() -> String {
        guard map.markedColumns.contains(true) else { return "" }
        let marks = map.markedColumns.map { String(repeating: $0 ? columnMark : " ", count: stretch) }.joined()
        return colored(marks, Palette.columnMark)
    }

    func legend(_ heatMap: HeatMap) -> String {
        let steps = 20
        let bar = (0..<steps).map { step in
            let fraction = Float(step) / Float(steps - 1)
            return terminal.colors == .none
                ? String(Painter.ramp[Int(fraction * Float(Painter.ramp.count - 1) + 0.5)])
                : ColorMap.color(fraction).escape(terminal.colors, background: true) + " "
        }.joined()
        let end = terminal.colors == .none ? "" : Painter.reset
        var parts = [
            heatMap.valueName + (heatMap.scale == .logarithmic ? " (log)" : "") + " "
                + Format.significant(axis.lower, digits: 2) + " [" + bar + end + "] "
                + Format.significant(axis.upper, digits: 2)
        ]
        if let marks = heatMap.rowMarks, !marks.indices.isEmpty {
            parts.append(colored(rowMark, Palette.rowMark) + " " + TextWidth.printable(marks.label))
        }
        if let marks = heatMap.columnMarks, !marks.indices.isEmpty {
            parts.append(colored(columnMark, Palette.columnMark) + " " + TextWidth.printable(marks.label))
        }
        if heatMap.hasNonFinite {
            parts.append(terminal.colors == .none ? "! not finite" : colored(notFiniteKey, ColorMap.notFinite) + " not finite")
        }
        return parts.joined(separator: "   ")
    }

    private var rowMark: String { terminal.showsUnicode ? "◂" : "<" }
    private var columnMark: String { terminal.showsUnicode ? "▾" : "v" }
    private var notFiniteKey: String { terminal.showsUnicode ? "■" : "#" }

    private func ascii(_ value: Float) -> String {
        guard !value.isNaN else { return "!" }
        let top = Float(Painter.ramp.count - 1)
        return String(Painter.ramp[Int((Float(axis.fraction(Double(value))) * top).rounded())])
    }
}
