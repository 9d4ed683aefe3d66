/// Pixels to draw on.
struct Canvas: Surface {
    let width: Int
    let height: Int
    private(set) var pixels: [RGB]

    /// Pixels of the screen for each dot of a letter.
    private static let dot = 2

    init(width: Int, height: Int) {
        self.width = width
        self.height = height
        pixels = Array(repeating: Palette.paper, count: width * height)
    }

    func width(of text: String) -> Int {
        text.count * (PixelFont.width + 1) * Canvas.dot
    }

    mutating func fill(_ rectangle: Rectangle, _ color: RGB) {
        let columns = max(0, rectangle.x)..<max(0, min(width, rectangle.maxX), rectangle.x)
        for row in max(0, rectangle.y)..<max(0, min(height, rectangle.maxY), rectangle.y) {
            for column in columns { pixels[row * width + column] = color }
        }
    }

    mutating func text(_ text: String, x: Int, y: Int, anchor: TextAnchor, color: RGB) {
        let textWidth = width(of: text) - Canvas.dot
        var left =
            switch anchor {
            case .start: x
            case .middle: x - textWidth / 2
            case .end: x - textWidth
            }
        let top = y - PixelFont.height * Canvas.dot / 2
        for character in text {
            for (row, dots) in PixelFont.rows(of: character).enumerated() {
                for column in 0..<PixelFont.width where dots >> (PixelFont.width - 1 - column) & 1 == 1 {
                    fill(
                        Rectangle(
                            x: left + column * Canvas.dot, y: top + row * Canvas.dot, width: Canvas.dot, height: Canvas.dot),
                        color)
                }
            }
            left += (PixelFont.width + 1) * Canvas.dot
        }
    }

    mutating func image(_ image: [RGB], columns: Int, in rectangle: Rectangle) {
        guard columns > 0, !image.isEmpty else { return }
        let rows = image.count / columns
        for y in 0..<rectangle.height {
            for x in 0..<rectangle.width {
                let pixel = image[y * rows / rectangle.height * columns + x * columns / rectangle.width]
                pixels[(rectangle.y + y) * width + rectangle.x + x] = pixel
            }
        }
    }

    func png() -> [UInt8] {
        PNG.encode(pixels, width: width, height: height)
    }
}
