extension HeatMap {
    /// The map as a PNG image with title, marks, labels and legend.
    public func png() -> [UInt8] {
        let layout = PictureLayout(self)
        var canvas = Canvas(width: layout.width, height: layout.height)
        draw(layout, on: &canvas)
        return canvas.png()
    }

    /// The map as an SVG drawing, its cells as an embedded PNG, everything else as shapes and text.
    public func svg() -> String {
        let layout = PictureLayout(self)
        var document = SVGDocument(width: layout.width, height: layout.height)
        draw(layout, on: &document)
        return document.text()
    }

    private func draw(_ layout: PictureLayout, on surface: inout some Surface) {
        let map = layout.map
        let axis = self.axis
        let pooled = layout.pooled
        surface.text(title, x: map.x, y: 20, anchor: .start, color: Palette.ink)
        let pixels = pooled.rows.indices.flatMap { row in
            pooled.columns.indices.map { pooled.color(row, $0, axis) }
        }
        surface.image(pixels, columns: pooled.columns.count, in: map)
        drawMarks(layout, on: &surface)
        drawTicks(layout, on: &surface)
        drawLegend(layout, axis, on: &surface)
    }

    /// Marked rows right of the map, marked columns above it.
    private func drawMarks(_ layout: PictureLayout, on surface: inout some Surface) {
        let map = layout.map
        for (row, isMarked) in layout.pooled.markedRows.enumerated() where isMarked {
            // Rows of more than two pixels keep a gap, so that neighbours can be counted.
            let height = layout.rowHeight > 2 ? layout.rowHeight - 1 : layout.rowHeight
            surface.fill(
                Rectangle(x: map.maxX + 4, y: map.y + row * layout.rowHeight, width: 12, height: height), Palette.rowMark)
        }
        for (column, isMarked) in layout.pooled.markedColumns.enumerated() where isMarked {
            let width = layout.columnWidth > 2 ? layout.columnWidth - 1 : layout.columnWidth
            surface.fill(
                Rectangle(x: map.x + column * layout.columnWidth, y: map.y - 16, width: width, height: 12),
                Palette.columnMark)
        }
    }

    private func drawTicks(_ layout: PictureLayout, on surface: inout some Surface) {
        let map = layout.map
        let rowTicks = Axis.wholeTicks(firstRow..<firstRow + rowCount, countMax: map.height / 40, isBinary: true)
        for tick in rowTicks {
            let y = map.y + (2 * (tick - firstRow) + 1) * map.height / (2 * rowCount)
            surface.fill(Rectangle(x: map.x - 7, y: y, width: 5, height: 1), Palette.faint)
            surface.text(String(tick), x: map.x - 11, y: y, anchor: .end, color: Palette.faint)
        }
        let columnTicks = Axis.wholeTicks(
            firstColumn..<firstColumn + columnCount, countMax: map.width / 90, isBinary: false)
        for tick in columnTicks {
            let x = map.x + (2 * (tick - firstColumn) + 1) * map.width / (2 * columnCount)
            surface.fill(Rectangle(x: x, y: map.maxY + 2, width: 1, height: 5), Palette.faint)
            surface.text(String(tick), x: x, y: map.maxY + 18, anchor: .middle, color: Palette.faint)
        }
        surface.text(rowName, x: map.x - 11, y: map.y - 18, anchor: .end, color: Palette.ink)
        surface.text(columnName, x: map.x + map.width / 2, y: map.maxY + 40, anchor: .middle, color: Palette.ink)
    }

    /// The colour scale, and what the marks are.
    private func drawLegend(_ layout: PictureLayout, _ axis: Axis, on surface: inout some Surface) {
        let barWidth = 192
        let y = layout.map.maxY + 66
        var x = layout.map.x
        func write(_ text: String, _ color: RGB, gap: Int) {
            surface.text(text, x: x, y: y, anchor: .start, color: color)
            x += surface.width(of: text) + gap
        }
        write(valueName + (scale == .logarithmic ? " (log)" : ""), Palette.ink, gap: 10)
        write(Format.significant(axis.lower, digits: 2), Palette.faint, gap: 6)
        surface.image(
            (0..<barWidth).map { ColorMap.color(Float($0) / Float(barWidth - 1)) }, columns: barWidth,
            in: Rectangle(x: x, y: y - 7, width: barWidth, height: 14))
        x += barWidth + 8
        write(Format.significant(axis.upper, digits: 2), Palette.faint, gap: 28)
        var keys: [(String, RGB)] = []
        if let rowMarks, !rowMarks.indices.isEmpty { keys.append((rowMarks.label, Palette.rowMark)) }
        if let columnMarks, !columnMarks.indices.isEmpty { keys.append((columnMarks.label, Palette.columnMark)) }
        if hasNonFinite { keys.append(("not finite", ColorMap.notFinite)) }
        for (label, color) in keys {
            surface.fill(Rectangle(x: x, y: y - 6, width: 12, height: 12), color)
            x += 18
            write(label, Palette.ink, gap: 24)
        }
    }
}

/// Where the parts of the picture lie, in pixels.
private struct PictureLayout {
    let pooled: PooledMap
    let map: Rectangle
    let rowHeight: Int
    let columnWidth: Int
    let width: Int
    let height: Int

    init(_ heatMap: HeatMap) {
        pooled = heatMap.pooled(rowCountMax: 640, columnCountMax: 1_280)
        rowHeight = min(16, max(1, 640 / pooled.rows.count))
        columnWidth = min(16, max(1, 1_280 / pooled.columns.count))
        let measure = Canvas(width: 1, height: 1)
        let labels = [heatMap.rowName, String(heatMap.firstRow + heatMap.rowCount - 1)]
        let left = 20 + (labels.map(measure.width(of:)).max() ?? 0)
        map = Rectangle(
            x: left, y: 56, width: columnWidth * pooled.columns.count, height: rowHeight * pooled.rows.count)
        let legend = [heatMap.valueName, heatMap.rowMarks?.label ?? "", heatMap.columnMarks?.label ?? "", "not finite"]
        let legendWidth = left + measure.width(of: legend.joined() + " (log) 0.0000 0.0000") + 192 + 180
        width = max(map.maxX + 36, legendWidth, left + measure.width(of: heatMap.title) + 20)
        height = map.maxY + 90
    }
}
