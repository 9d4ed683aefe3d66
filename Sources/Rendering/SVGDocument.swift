/// An SVG 1.1 drawing.
struct SVGDocument: Surface {
    let width: Int
    let height: Int
    private var elements: [String] = []

    private static let fontSize = 13

    init(width: Int, height: Int) {
        self.width = width
        self.height = height
        fill(Rectangle(x: 0, y: 0, width: width, height: height), Palette.paper)
    }

    func width(of text: String) -> Int {
        // Fonts differ; few sans-serif letters are wider than 0.6 of the size on average.
        text.count * SVGDocument.fontSize * 6 / 10
    }

    mutating func fill(_ rectangle: Rectangle, _ color: RGB) {
        elements.append(
            "<rect x=\"\(rectangle.x)\" y=\"\(rectangle.y)\" width=\"\(rectangle.width)\" height=\"\(rectangle.height)\" "
                + "fill=\"\(color.hexadecimal)\"/>")
    }

    mutating func text(_ text: String, x: Int, y: Int, anchor: TextAnchor, color: RGB) {
        let name =
            switch anchor {
            case .start: "start"
            case .middle: "middle"
            case .end: "end"
            }
        // Capital letters are about 0.7 of the size high; few programs know dominant-baseline.
        elements.append(
            "<text x=\"\(x)\" y=\"\(y + SVGDocument.fontSize * 35 / 100)\" text-anchor=\"\(name)\" "
                + "fill=\"\(color.hexadecimal)\">\(escaped(text))</text>")
    }

    mutating func image(_ pixels: [RGB], columns: Int, in rectangle: Rectangle) {
        guard columns > 0, !pixels.isEmpty else { return }
        // At its full size: not all programs know how to enlarge an image without blurring it.
        var canvas = Canvas(width: rectangle.width, height: rectangle.height)
        canvas.image(
            pixels, columns: columns, in: Rectangle(x: 0, y: 0, width: rectangle.width, height: rectangle.height))
        elements.append(
            "<image x=\"\(rectangle.x)\" y=\"\(rectangle.y)\" width=\"\(rectangle.width)\" height=\"\(rectangle.height)\" "
                + "xlink:href=\"data:image/png;base64,\(base64(canvas.png()))\"/>")
    }

    /// A line through points, in pixels.
    mutating func line(_ points: [(x: Double, y: Double)], _ color: RGB, width: Double) {
        let list = points.map { "\(coordinate($0.x)),\(coordinate($0.y))" }.joined(separator: " ")
        elements.append(
            "<polyline points=\"\(list)\" fill=\"none\" stroke=\"\(color.hexadecimal)\" stroke-width=\"\(coordinate(width))\" "
                + "stroke-linejoin=\"round\" stroke-linecap=\"round\"/>")
    }

    mutating func circle(x: Double, y: Double, radius: Double, _ color: RGB) {
        elements.append(
            "<circle cx=\"\(coordinate(x))\" cy=\"\(coordinate(y))\" r=\"\(coordinate(radius))\" fill=\"\(color.hexadecimal)\"/>")
    }

    /// Text that reads upwards, its middle at the point given.
    mutating func upwardText(_ text: String, x: Int, y: Int, color: RGB) {
        elements.append(
            "<text transform=\"translate(\(x),\(y)) rotate(-90)\" text-anchor=\"middle\" fill=\"\(color.hexadecimal)\">"
                + "\(escaped(text))</text>")
    }

    /// The whole document, one element to a line.
    func text() -> String {
        let root =
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" "
            + "width=\"\(width)\" height=\"\(height)\" viewBox=\"0 0 \(width) \(height)\" "
            + "font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\" "
            + "font-size=\"\(SVGDocument.fontSize)\">"
        return ([root] + elements + ["</svg>"]).joined(separator: "\n") + "\n"
    }

    // MARK: - Details

    private func coordinate(_ value: Double) -> String {
        Format.decimal(value, places: 1)
    }

    /// Text that XML takes for text; the characters that XML cannot hold at all are replaced.
    private func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "\0"..<" ", "\u{FFFE}", "\u{FFFF}": result += "\u{FFFD}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

/// RFC 4648, section 4.
func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var result: [UInt8] = []
    result.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let group = bytes[start..<min(start + 3, bytes.count)]
        var bits: UInt32 = 0
        for index in 0..<3 { bits = bits << 8 | (index < group.count ? UInt32(group[start + index]) : 0) }
        for index in 0..<4 {
            result.append(index <= group.count ? alphabet[Int(bits >> (18 - 6 * index) & 63)] : UInt8(ascii: "="))
        }
    }
    return String(decoding: result, as: UTF8.self)
}
