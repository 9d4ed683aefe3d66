/// Values of named things side by side, such as the error of each profile.
public struct BarPlot: Sendable {
    public var title: String
    /// What the values are, with their unit where they have one.
    public var valueName: String
    /// The things compared.
    public var labels: [String]
    /// One value for each label.
    public var series: [Series]

    public init(title: String, valueName: String, labels: [String], series: [Series]) {
        self.title = title
        self.valueName = valueName
        self.labels = labels
        self.series = series
    }

    private func axis(roundsOut: Bool) -> Axis {
        Axis(magnitudes: series.lazy.flatMap(\.values), scale: .linear, tickCountMax: 5, roundsOut: roundsOut)
    }

    private func value(_ series: Series, _ index: Int) -> Double {
        index < series.values.count ? series.values[index] : .nan
    }

    // MARK: - Terminal

    /// A line for each value: label, bar, number.
    public func text(terminal: Terminal) -> String {
        let names = labels.map(TextWidth.printable)
        let seriesNames = series.count > 1 ? series.map { TextWidth.printable($0.name) } : [""]
        let labelWidth = min(terminal.width / 3, names.map(TextWidth.columns).max() ?? 0)
        let seriesWidth = seriesNames.map(TextWidth.columns).max() ?? 0
        let gutter = labelWidth + 1 + (seriesWidth > 0 ? seriesWidth + 1 : 0)
        let barWidth = max(8, min(60, terminal.width - gutter - 12))
        let axis = axis(roundsOut: false)
        var lines = title.isEmpty ? [] : [TextWidth.cut(TextWidth.printable("\(title)  (\(valueName))"), to: terminal.width - 1)]
        for (row, name) in names.enumerated() {
            for (index, one) in series.enumerated() {
                let value = value(one, row)
                let label = index == 0 ? TextWidth.cut(name, to: labelWidth) : ""
                let key = seriesWidth > 0 ? TextWidth.padded(seriesNames[index], to: seriesWidth) + " " : ""
                let bar = value.isFinite ? bar(axis.fraction(value), width: barWidth, terminal) : ""
                let color = Palette.series[index % Palette.series.count]
                let painted =
                    terminal.colors == .none || bar.isEmpty ? bar : color.escape(terminal.colors) + bar + "\u{1b}[0m"
                let number = value.isFinite ? Format.significant(value, digits: 3) : "-"
                lines.append(
                    TextWidth.padded(label, to: labelWidth) + " " + key + painted + (bar.isEmpty ? "" : " ") + number)
            }
        }
        return lines.map { trimmedRight($0) + "\n" }.joined()
    }

    private func bar(_ fraction: Double, width: Int, _ terminal: Terminal) -> String {
        guard terminal.showsUnicode else {
            return String(repeating: "#", count: max(fraction > 0 ? 1 : 0, Int((fraction * Double(width)).rounded())))
        }
        let eighths = max(fraction > 0 ? 1 : 0, Int((fraction * Double(width * 8)).rounded()))
        let parts = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
        return String(repeating: "█", count: eighths / 8) + parts[eighths % 8]
    }

    // MARK: - SVG

    /// Bars across, a group for each label.
    public func svg(width: Int = 800) -> String {
        let barHeight = series.count > 1 ? 12 : 18
        let groupHeight = max(1, series.count) * barHeight + 10
        let measure = SVGDocument(width: 1, height: 1)
        let left = 20 + (labels.map(measure.width(of:)).max() ?? 0)
        let axis = axis(roundsOut: true)
        let height = 60 + labels.count * groupHeight + 50
        var document = SVGDocument(width: width, height: height)
        // The numbers behind the bars need room, too.
        let plot = Rectangle(x: left, y: 56, width: max(80, width - left - 80), height: labels.count * groupHeight)
        PlotFrame.drawHead(title: title, series: series, x: 20, on: &document)
        for tick in axis.ticks {
            let x = plot.x + Int((axis.fraction(tick.value) * Double(plot.width)).rounded())
            document.fill(Rectangle(x: x, y: plot.y, width: 1, height: plot.height), Palette.grid)
            document.text(tick.label, x: x, y: plot.maxY + 14, anchor: .middle, color: Palette.faint)
        }
        document.text(valueName, x: plot.x + plot.width / 2, y: plot.maxY + 34, anchor: .middle, color: Palette.ink)
        for (row, label) in labels.enumerated() {
            let top = plot.y + row * groupHeight + 5
            let middle = top + series.count * barHeight / 2
            document.text(label, x: plot.x - 10, y: middle, anchor: .end, color: Palette.ink)
            for (index, one) in series.enumerated() {
                let value = value(one, row)
                guard value.isFinite else { continue }
                let length = Int((axis.fraction(value) * Double(plot.width)).rounded())
                let y = top + index * barHeight
                document.fill(
                    Rectangle(x: plot.x, y: y, width: length, height: barHeight - 1),
                    Palette.series[index % Palette.series.count])
                document.text(
                    Format.significant(value, digits: 3), x: plot.x + length + 6, y: y + barHeight / 2, anchor: .start,
                    color: Palette.faint)
            }
        }
        return document.text()
    }
}
