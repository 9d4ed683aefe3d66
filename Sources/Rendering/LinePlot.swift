/// Series along a numbered axis, such as the error of each layer.
public struct LinePlot: Sendable {
    public var title: String
    /// What the numbers along the x axis count: "layer".
    public var xName: String
    /// What the values are, with their unit where they have one.
    public var yName: String
    public var series: [Series]
    public var scale = Scale.linear
    /// The number of the first value of each series.
    public var firstX = 0

    public init(title: String, xName: String, yName: String, series: [Series]) {
        self.title = title
        self.xName = xName
        self.yName = yName
        self.series = series
    }

    private var pointCount: Int { series.map(\.values.count).max() ?? 0 }

    private var axis: Axis {
        Axis(magnitudes: series.lazy.flatMap(\.values), scale: scale, tickCountMax: 5, roundsOut: true)
    }

    // MARK: - SVG

    /// Lines with a dot for each value.
    public func svg(width: Int = 800, height: Int = 360) -> String {
        var document = SVGDocument(width: width, height: height)
        let frame = PlotFrame(width: width, height: height, left: 76, bottom: 50)
        let axis = self.axis
        frame.draw(title: title, series: series, axis: axis, yName: yName, on: &document)
        let plot = frame.plot
        func x(_ index: Int) -> Double {
            Double(plot.x) + (Double(index) + 0.5) / Double(max(1, pointCount)) * Double(plot.width)
        }
        for tick in Axis.wholeTicks(firstX..<firstX + pointCount, countMax: plot.width / 60, isBinary: false) {
            let position = Int(x(tick - firstX).rounded())
            document.fill(Rectangle(x: position, y: plot.maxY, width: 1, height: 5), Palette.faint)
            document.text(String(tick), x: position, y: plot.maxY + 16, anchor: .middle, color: Palette.faint)
        }
        document.text(xName, x: plot.x + plot.width / 2, y: plot.maxY + 36, anchor: .middle, color: Palette.ink)
        for (index, one) in series.enumerated() {
            let color = Palette.series[index % Palette.series.count]
            let runs = finiteRuns(one.values).map { run in
                run.map { (x: x($0), y: Double(plot.maxY) - axis.fraction(one.values[$0]) * Double(plot.height)) }
            }
            for run in runs {
                if run.count > 1 { document.line(run, color, width: 2) }
                // Many dots would only thicken the line.
                if pointCount <= 100 || run.count == 1 {
                    for point in run { document.circle(x: point.x, y: point.y, radius: 3, color) }
                }
            }
        }
        return document.text()
    }

    /// Indices of neighbouring values that can be drawn.
    private func finiteRuns(_ values: [Double]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start: Int?
        for index in 0...values.count {
            let isFinite = index < values.count && values[index].isFinite
            if isFinite, start == nil { start = index }
            if !isFinite, let first = start {
                result.append(first..<index)
                start = nil
            }
        }
        return result
    }

    // MARK: - Terminal

    /// One panel of upright bars for each series, all on the same axis; where there is no room for all values, each bar is the
    /// largest of its neighbours.
    ///
    /// - Parameter lineCount: lines of a panel's bars, 2 or more.
    public func text(terminal: Terminal, lineCount: Int = 7) -> String {
        let axis = self.axis
        let labels = [Format.significant(axis.upper, digits: 2), Format.significant(axis.lower, digits: 2)]
        let gutter = (labels.map(TextWidth.columns).max() ?? 0) + 1
        let room = max(1, terminal.width - gutter - 2)
        let groups = bins(pointCount, room)
        let barWidth = max(1, min(3, room / max(1, groups.count)))

        var lines: [String] = title.isEmpty ? [] : [TextWidth.cut(TextWidth.printable(title), to: terminal.width - 1)]
        for (index, one) in series.enumerated() {
            let color = Palette.series[index % Palette.series.count]
            let heights = groups.map { group -> Double? in
                let values = group.compactMap { $0 < one.values.count ? one.values[$0] : nil }.filter(\.isFinite)
                return values.max().map(axis.fraction)
            }
            lines.append(TextWidth.padded("", to: gutter + 1) + TextWidth.printable("\(one.name)  \(yName)"))
            for line in 0..<lineCount {
                let label = line == 0 ? labels[0] : line == lineCount - 1 ? labels[1] : ""
                let bars = heights.map { bar($0, line: line, of: lineCount, width: barWidth, terminal) }.joined()
                lines.append(
                    TextWidth.padded(label, to: gutter - 1, alignRight: true) + (terminal.showsUnicode ? " │" : " |")
                        + painted(trimmedRight(bars), color, terminal))
            }
        }
        lines.append(xLabels(gutter: gutter, groups: groups, barWidth: barWidth))
        return lines.map { trimmedRight($0) + "\n" }.joined()
    }

    /// The part of a bar that lies on one line, with a free column where there is room for it.
    private func bar(_ fraction: Double?, line: Int, of lineCount: Int, width: Int, _ terminal: Terminal) -> String {
        let blocks = terminal.showsUnicode ? Array(" ▁▂▃▄▅▆▇█") : Array(" .:#")
        let steps = blocks.count - 1
        let gap = width > 1 ? " " : ""
        let barWidth = width > 1 ? width - 1 : 1
        guard let fraction else { return String(repeating: " ", count: barWidth) + gap }
        // A value above the lower end of the axis is never drawn as nothing.
        let height = max(fraction > 0 ? 1 : 0, Int((fraction * Double(lineCount * steps)).rounded()))
        let here = min(max(height - (lineCount - 1 - line) * steps, 0), steps)
        return String(repeating: blocks[here], count: barWidth) + gap
    }

    private func painted(_ text: String, _ color: RGB, _ terminal: Terminal) -> String {
        terminal.colors == .none ? text : color.escape(terminal.colors) + text + "\u{1b}[0m"
    }

    private func xLabels(gutter: Int, groups: [Range<Int>], barWidth: Int) -> String {
        var line = TextWidth.padded("", to: gutter + 1)
        let ticks = Axis.wholeTicks(
            firstX..<firstX + pointCount, countMax: max(1, groups.count * barWidth / 8), isBinary: false)
        for tick in ticks {
            guard let group = groups.firstIndex(where: { $0.contains(tick - firstX) }) else { continue }
            let position = gutter + 1 + group * barWidth
            if line.count <= position { line = TextWidth.padded(line, to: position) + String(tick) + " " }
        }
        return line + " " + xName
    }
}
