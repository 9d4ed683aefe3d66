/// Rows of text in aligned columns.
///
/// ```
/// NAME       TOKENS      BYTES
/// lobby       2,051   10.2 MiB
/// entrance  705,600   2.31 GiB
/// ```
public struct TextTable: Sendable {
    public enum Alignment: Sendable {
        case left
        /// For numbers.
        case right
    }

    public struct Column: Sendable {
        public let title: String
        public let alignment: Alignment

        public static func left(_ title: String) -> Column { Column(title: title, alignment: .left) }
        public static func right(_ title: String) -> Column { Column(title: title, alignment: .right) }
    }

    public let columns: [Column]
    public private(set) var rows: [[String]] = []

    public init(_ columns: Column...) {
        self.columns = columns
    }

    public init(columns: [Column]) {
        self.columns = columns
    }

    /// Adds a row; cells that are missing at its end are empty, and control characters are escaped.
    ///
    /// - Precondition: not more cells than columns.
    public mutating func append(_ cells: [String]) {
        precondition(cells.count <= columns.count, "a row has more cells than the table has columns")
        rows.append(cells.map(TextWidth.printable) + Array(repeating: "", count: columns.count - cells.count))
    }

    /// Adds a row; see `append(_:)` of an array.
    public mutating func append(_ cells: String...) {
        append(cells)
    }

    /// The table, each line with its end, no line with spaces at its end.
    public func text() -> String {
        let titles = columns.map(\.title)
        let widths = columns.indices.map { column in
            ([titles] + rows).map { TextWidth.columns($0[column]) }.max() ?? 0
        }
        return ([titles] + rows).map { cells in
            let padded = columns.indices.map {
                TextWidth.padded(cells[$0], to: widths[$0], alignRight: columns[$0].alignment == .right)
            }
            return trimmedRight(padded.joined(separator: "  ")) + "\n"
        }.joined()
    }
}

/// `text` without the spaces at its end.
func trimmedRight(_ text: String) -> String {
    guard let last = text.lastIndex(where: { $0 != " " }) else { return "" }
    return String(text[...last])
}
