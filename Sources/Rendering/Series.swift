/// Named values, one for each place along the x axis.
public struct Series: Sendable, Hashable {
    public var name: String
    /// Those that are no finite number are left out of the drawing.
    public var values: [Double]

    public init(_ name: String, _ values: [Double]) {
        self.name = name
        self.values = values
    }
}

/// A frame for plots: where the axes are, in pixels.
struct PlotFrame {
    let width: Int
    let height: Int
    let plot: Rectangle

    init(width: Int, height: Int, left: Int, bottom: Int) {
        self.width = width
        self.height = height
        plot = Rectangle(x: left, y: 60, width: width - left - 24, height: height - 60 - bottom)
    }

    /// Title, legend, and the y axis with its grid.
    func draw(title: String, series: [Series], axis: Axis, yName: String, on document: inout SVGDocument) {
        PlotFrame.drawHead(title: title, series: series, x: plot.x, on: &document)
        for tick in axis.ticks {
            let y = plot.maxY - Int((axis.fraction(tick.value) * Double(plot.height)).rounded())
            document.fill(Rectangle(x: plot.x, y: y, width: plot.width, height: 1), Palette.grid)
            document.text(tick.label, x: plot.x - 8, y: y, anchor: .end, color: Palette.faint)
        }
        document.fill(Rectangle(x: plot.x, y: plot.maxY, width: plot.width, height: 1), Palette.faint)
        document.upwardText(yName, x: 18, y: plot.y + plot.height / 2, color: Palette.ink)
    }

    /// The title, and below it the colours of the series, where there are several.
    static func drawHead(title: String, series: [Series], x: Int, on document: inout SVGDocument) {
        document.text(title, x: x, y: 18, anchor: .start, color: Palette.ink)
        var x = x
        for (index, one) in series.enumerated() where series.count > 1 {
            document.fill(Rectangle(x: x, y: 34, width: 12, height: 12), Palette.series[index % Palette.series.count])
            document.text(one.name, x: x + 18, y: 40, anchor: .start, color: Palette.ink)
            x += 18 + document.width(of: one.name) + 20
        }
    }
}
