/// A matrix of magnitudes as a picture: rows down, columns across, brighter for larger.
///
/// Rows and columns that stand for something, such as anomalous channels and protected tokens, can be marked at the edges.
/// What does not fit is pooled by its maximum, so that a single large value stays to be seen.
public struct HeatMap: Sendable {
    /// Some rows or columns, and what they are.
    public struct Marks: Sendable, Hashable {
        public var indices: Set<Int>
        public var label: String

        public init(_ label: String, _ indices: some Sequence<Int>) {
            self.label = label
            self.indices = Set(indices)
        }
    }

    public let rowCount: Int
    public let columnCount: Int
    /// Rows first. Those that are no finite number are drawn in a colour of their own.
    public let magnitudes: [Float]

    public var title = ""
    /// What a row is: "channel".
    public var rowName = "row"
    /// What a column is: "token".
    public var columnName = "column"
    /// What the magnitudes are, with their unit where they have one: "|K|".
    public var valueName = "value"
    public var scale = Scale.linear
    /// The number of the first row and of the first column, for the labels.
    public var firstRow = 0
    public var firstColumn = 0
    /// Indices into the rows of this matrix, from 0.
    public var rowMarks: Marks?
    /// Indices into the columns of this matrix, from 0.
    public var columnMarks: Marks?

    /// - Precondition: `magnitudes` has `rowCount * columnCount` values, and both counts are positive.
    public init(rowCount: Int, columnCount: Int, magnitudes: [Float]) {
        precondition(rowCount > 0 && columnCount > 0, "a heat map needs a row and a column")
        precondition(magnitudes.count == rowCount * columnCount, "the magnitudes do not fill the matrix")
        self.rowCount = rowCount
        self.columnCount = columnCount
        self.magnitudes = magnitudes
    }

    /// The range of the finite magnitudes.
    var axis: Axis {
        Axis(
            magnitudes: magnitudes.lazy.map(Double.init), scale: scale, tickCountMax: 5, roundsOut: false)
    }

    var hasNonFinite: Bool {
        magnitudes.contains { !$0.isFinite }
    }

    /// The matrix in at most as many rows and columns.
    func pooled(rowCountMax: Int, columnCountMax: Int) -> PooledMap {
        let rows = bins(rowCount, max(1, rowCountMax))
        let columns = bins(columnCount, max(1, columnCountMax))
        var values: [Float] = []
        values.reserveCapacity(rows.count * columns.count)
        for row in rows {
            for column in columns { values.append(maximum(row, column)) }
        }
        return PooledMap(
            rows: rows, columns: columns, values: values,
            markedRows: rows.map { marked($0, rowMarks) }, markedColumns: columns.map { marked($0, columnMarks) })
    }

    /// The largest finite value of a block; a value that is not finite wins over all.
    private func maximum(_ rows: Range<Int>, _ columns: Range<Int>) -> Float {
        var result = -Float.infinity
        for row in rows {
            for value in magnitudes[row * columnCount + columns.lowerBound..<row * columnCount + columns.upperBound] {
                guard value.isFinite else { return .nan }
                result = max(result, value)
            }
        }
        return result
    }

    private func marked(_ range: Range<Int>, _ marks: Marks?) -> Bool {
        guard let marks, !marks.indices.isEmpty else { return false }
        return range.contains { marks.indices.contains($0) }
    }
}

/// A heat map after pooling: which rows and columns went into each of what is drawn.
struct PooledMap {
    let rows: [Range<Int>]
    let columns: [Range<Int>]
    /// Rows first; NaN where a value was not finite.
    let values: [Float]
    let markedRows: [Bool]
    let markedColumns: [Bool]

    func color(_ row: Int, _ column: Int, _ axis: Axis) -> RGB {
        let value = values[row * columns.count + column]
        return value.isNaN ? ColorMap.notFinite : ColorMap.color(Float(axis.fraction(Double(value))))
    }
}

/// `count` things in at most `countMax` neighbouring groups of nearly equal size.
func bins(_ count: Int, _ countMax: Int) -> [Range<Int>] {
    let binCount = min(count, countMax)
    return (0..<binCount).map { $0 * count / binCount..<($0 + 1) * count / binCount }
}
