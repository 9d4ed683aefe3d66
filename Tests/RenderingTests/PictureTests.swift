import FoundationEssentials
import Rendering
import Testing

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

@Suite struct PictureTests {
    @Test(arguments: 0..<20)
    func pngRoundTrip(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let width = Int.random(in: 1...50, using: &random)
        let height = Int.random(in: 1...50, using: &random)
        let pixels = (0..<width * height).map { _ in
            RGB(.random(in: 0...255, using: &random), .random(in: 0...3, using: &random), .random(in: 0...255, using: &random))
        }
        let decoded = try DecodedPNG(PNG.encode(pixels, width: width, height: height))
        #expect(decoded.width == width)
        #expect(decoded.height == height)
        #expect(decoded.pixels == pixels)
    }

    // MARK: - Colours

    /// Brighter means larger, also without colour: luminance rises with every step.
    @Test func colorMapRises() {
        let luminance = (0...255).map { step in
            let color = ColorMap.color(Float(step) / 255)
            return 0.2126 * linear(color.red) + 0.7152 * linear(color.green) + 0.0722 * linear(color.blue)
        }
        for (lower, upper) in zip(luminance, luminance.dropFirst()) { #expect(lower < upper + 1e-4) }
        #expect(luminance[0] < 0.02)
        #expect(luminance[255] > 0.75)
        // No step is seen as an edge where there is none.
        for step in 1...255 {
            let (a, b) = (ColorMap.color(Float(step - 1) / 255), ColorMap.color(Float(step) / 255))
            for (x, y) in [(a.red, b.red), (a.green, b.green), (a.blue, b.blue)] { #expect(abs(Int(x) - Int(y)) <= 8) }
        }
    }

    @Test func colorMapClips() {
        #expect(ColorMap.color(-1) == ColorMap.color(0))
        #expect(ColorMap.color(7) == ColorMap.color(1))
        #expect(RGB(1, 16, 255).hexadecimal == "#0110ff")
    }

    private func linear(_ component: UInt8) -> Double {
        let value = Double(component) / 255
        return value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4)
    }

    // MARK: - Heat maps

    /// The picture of a map holds its cells as blocks of their colour, and the marks at the edges.
    @Test func heatMapPixels() throws {
        var map = HeatMap(rowCount: 2, columnCount: 3, magnitudes: [0, 1, 2, 3, .nan, 4])
        map.rowMarks = .init("anomalous", [1])
        map.columnMarks = .init("protected", [2])
        let picture = try DecodedPNG(map.png())
        // Cells of few rows and columns are 16 pixels wide and high; the map begins behind labels of "row".
        let left = try #require((0..<picture.width).first { picture[$0, 60] == ColorMap.color(0) })
        for (row, fractions) in [[0, 0.25, 0.5], [0.75, nil, 1]].enumerated() {
            for (column, fraction) in fractions.enumerated() {
                let color = fraction.map { ColorMap.color(Float($0)) } ?? ColorMap.notFinite
                for (dx, dy) in [(0, 0), (15, 15), (7, 8)] {
                    #expect(picture[left + column * 16 + dx, 56 + row * 16 + dy] == color)
                }
            }
        }
        let paper = RGB(255, 255, 255)
        #expect(picture[left + 3 * 16 + 8, 56 + 8] == paper)
        #expect(picture[left + 3 * 16 + 8, 56 + 24] == RGB(232, 89, 12))
        #expect(picture[left + 24, 46] == paper)
        #expect(picture[left + 40, 46] == RGB(28, 126, 214))
    }

    /// One large value among a million small ones is still seen.
    @Test(arguments: 0..<5)
    func poolingKeepsTheLargest(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let (rows, columns) = (Int.random(in: 1...700, using: &random), Int.random(in: 1...2_000, using: &random))
        var magnitudes = [Float](repeating: 0.01, count: rows * columns)
        magnitudes[Int.random(in: 0..<magnitudes.count, using: &random)] = 1
        let map = HeatMap(rowCount: rows, columnCount: columns, magnitudes: magnitudes)
        let text = map.text(terminal: .plain)
        // Once in the map (or more often, where cells are stretched), once in the legend.
        #expect(text.filter { $0 == "@" }.count >= 2)
        let picture = try DecodedPNG(map.png())
        let legendTop = picture.height - 40
        #expect(picture.pixels[..<(legendTop * picture.width)].contains(ColorMap.color(1)))
        #expect(picture.width < 1_500 && picture.height < 800)
    }

    @Test func heatMapOfNothing() throws {
        for value in [0, Float.nan, .infinity, -1] {
            for scale in [Scale.linear, .logarithmic] {
                var map = HeatMap(rowCount: 1, columnCount: 1, magnitudes: [value])
                map.scale = scale
                _ = try DecodedPNG(map.png())
                #expect(map.text(terminal: .plain).contains(value.isFinite ? " [" : "! not finite"))
                #expect(map.svg().hasSuffix("</svg>\n"))
            }
        }
    }

    @Test func heatMapSVG() throws {
        var map = HeatMap(rowCount: 4, columnCount: 5, magnitudes: (0..<20).map(Float.init))
        map.title = "<a href=\"x\">&\u{1}"
        map.rowName = "channel"
        map.valueName = "|K|"
        let text = map.svg()
        #expect(text.contains(">&lt;a href=&quot;x&quot;&gt;&amp;\u{FFFD}</text>"))
        #expect(text.contains(">channel</text>"))
        #expect(text.contains(">|K|</text>"))
        // The first picture is the map, the second the legend's bar.
        let marker = "data:image/png;base64,"
        let start = try #require(text.firstRange(of: marker)).upperBound
        let end = try #require(text[start...].firstIndex(of: "\""))
        let data = try #require(Data(base64Encoded: String(text[start..<end])))
        let picture = try DecodedPNG(Array(data))
        #expect(picture.width == 5 * 16 && picture.height == 4 * 16)
        #expect(picture[0, 0] == ColorMap.color(0))
        #expect(picture[79, 63] == ColorMap.color(1))
    }

    @Test func heatMapASCII() {
        var map = HeatMap(
            rowCount: 4, columnCount: 9, magnitudes: (0..<36).map { Float($0 % 9 + $0 / 9) })
        map.title = "layer 0"
        map.rowName = "channel"
        map.columnName = "token"
        map.valueName = "|K|"
        map.firstColumn = 256
        map.rowMarks = .init("anomalous channel", [2])
        map.columnMarks = .init("protected token", [0, 1])
        #expect(
            map.text(terminal: Terminal(isInteractive: false, showsUnicode: false, colors: .none, width: 40))
                == """
                layer 0
                channel vvvvvv
                      0    ...::::::---===+++***###
                        ...::::::---===+++***######
                        ::::::---===+++***######%%% <
                        :::---===+++***######%%%@@@
                                    260  token
                        |K| 0 [  ..::--==++**##%%@@] 11   < anomalous channel   v protected token

                """)
    }

    @Test func heatMapHalfBlocks() {
        let magnitudes = (0..<7 * 10).map(Float.init)
        let map = HeatMap(rowCount: 7, columnCount: 10, magnitudes: magnitudes)
        for colors in [Terminal.Colors.indexed, .direct] {
            var terminal = Terminal(isInteractive: true, showsUnicode: true, colors: colors, width: 60)
            let lines = map.text(terminal: terminal).split(separator: "\n").filter { $0.contains("▀") }
            // Seven rows, two to a line, the last one alone; cells stretched to the four columns that are allowed.
            #expect(lines.count == 4)
            for line in lines { #expect(line.filter { $0 == "▀" }.count == 40) }
            #expect(lines.last?.contains("\u{1b}[49m") == true)
            terminal.showsUnicode = false
            #expect(!map.text(terminal: terminal).contains("▀"))
        }
    }

    // MARK: - Plots

    @Test func linePlotSVG() {
        let plot = LinePlot(
            title: "Error", xName: "layer", yName: "NMSE",
            series: [Series("K", [0.1, 0.2, .nan, 0.4, .infinity]), Series("V <", [0.3, 0.2, 0.1, 0.2, 0.3])])
        let text = plot.svg()
        #expect(text.ranges(of: "<circle").count == 8)
        // K falls into a run of two and a single point, V is one run.
        #expect(text.ranges(of: "<polyline").count == 2)
        #expect(text.contains(">V &lt;</text>"))
        for label in ["0.0", "0.1", "0.4", "layer", "NMSE"] { #expect(text.contains(">\(label)</text>")) }
    }

    @Test func linePlotText() {
        let plot = LinePlot(
            title: "Error of each layer", xName: "layer", yName: "NMSE",
            series: [Series("K", [0.1, 0.25, .nan, 0.5]), Series("V", [0.5, 0.5, 0, 0.001])])
        let terminal = Terminal(isInteractive: true, showsUnicode: true, colors: .none, width: 40)
        #expect(
            plot.text(terminal: terminal, lineCount: 2) == """
                Error of each layer
                      K  NMSE
                0.50 │         ██
                   0 │▃▃ ██    ██
                      V  NMSE
                0.50 │██ ██
                   0 │██ ██    ▁▁
                      0  layer

                """)
        #expect(
            plot.text(terminal: .plain, lineCount: 2)
                == """
                Error of each layer
                      K  NMSE
                0.50 |         ##
                   0 |.. ##    ##
                      V  NMSE
                0.50 |## ##
                   0 |## ##    ..
                      0  layer

                """)
    }

    @Test func linePlotOfManyValuesFits() {
        let plot = LinePlot(
            title: "", xName: "page", yName: "ms", series: [Series("", (0..<5_000).map { $0 == 3_333 ? 9 : 1 })])
        let text = plot.text(terminal: .plain)
        #expect(text.split(separator: "\n").allSatisfy { $0.count < 120 })
        // The peak is not lost among its neighbours.
        #expect(text.split(separator: "\n")[1].contains("."))
        #expect(!plot.svg().contains("<circle"))
    }

    @Test func plotsOfNothing() {
        let empty = LinePlot(title: "", xName: "", yName: "", series: [])
        #expect(empty.svg().hasSuffix("</svg>\n"))
        #expect(!empty.text(terminal: .plain).isEmpty)
        let zero = LinePlot(title: "", xName: "", yName: "", series: [Series("", [0, -1, .nan])])
        #expect(zero.svg().contains("<polyline"))
        let bars = BarPlot(title: "t", valueName: "", labels: [], series: [])
        #expect(bars.text(terminal: .plain) == "t  ()\n")
        #expect(bars.svg().hasSuffix("</svg>\n"))
    }

    @Test func barPlot() {
        let plot = BarPlot(
            title: "Attention error", valueName: "relative L2", labels: ["vidkv-2-2", "int4"],
            series: [Series("", [0.104, 0.0156])])
        var terminal = Terminal(isInteractive: false, showsUnicode: false, colors: .none, width: 42)
        #expect(
            plot.text(terminal: terminal) == """
                Attention error  (relative L2)
                vidkv-2-2 #################### 0.104
                int4      ### 0.0156

                """)
        terminal.showsUnicode = true
        #expect(
            plot.text(terminal: terminal) == """
                Attention error  (relative L2)
                vidkv-2-2 ████████████████████ 0.104
                int4      ███ 0.0156

                """)
        var missing = plot
        missing.series.append(Series("other", [.nan]))
        #expect(missing.text(terminal: terminal).contains("other -\n"))
        #expect(missing.svg().contains(">0.104</text>"))
    }
}
