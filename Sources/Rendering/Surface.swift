/// A rectangle in whole pixels, from the top left.
struct Rectangle: Sendable, Hashable {
    var x: Int
    var y: Int
    var width: Int
    var height: Int

    var maxX: Int { x + width }
    var maxY: Int { y + height }
}

enum TextAnchor: Sendable {
    case start
    case middle
    case end
}

/// What a picture can be drawn on: pixels for PNG, elements for SVG. One drawing serves both.
protocol Surface {
    /// Pixels that `text` takes at most.
    func width(of text: String) -> Int
    mutating func fill(_ rectangle: Rectangle, _ color: RGB)
    /// Draws one line; `y` is the middle of its capital letters.
    mutating func text(_ text: String, x: Int, y: Int, anchor: TextAnchor, color: RGB)
    /// Draws pixels, `columns` to a row, each stretched so that together they fill `rectangle`.
    mutating func image(_ pixels: [RGB], columns: Int, in rectangle: Rectangle)
}
