#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A colour of the sRGB space.
public struct RGB: Sendable, Hashable {
    public var red: UInt8
    public var green: UInt8
    public var blue: UInt8

    public init(_ red: UInt8, _ green: UInt8, _ blue: UInt8) {
        self.red = red
        self.green = green
        self.blue = blue
    }

    /// `#rrggbb`.
    public var hexadecimal: String {
        "#"
            + [red, green, blue].map { component in
                (component < 16 ? "0" : "") + String(component, radix: 16)
            }.joined()
    }

    /// The nearest entry of xterm's 6 x 6 x 6 colour cube or grey ramp.
    var xtermIndex: Int {
        let levels = [0, 95, 135, 175, 215, 255]
        func nearest(_ component: UInt8) -> Int {
            levels.indices.min { abs(levels[$0] - Int(component)) < abs(levels[$1] - Int(component)) } ?? 0
        }
        func distance(_ r: Int, _ g: Int, _ b: Int) -> Int {
            let (dr, dg, db) = (r - Int(red), g - Int(green), b - Int(blue))
            return dr * dr + dg * dg + db * db
        }
        let (r, g, b) = (nearest(red), nearest(green), nearest(blue))
        let mean = (Int(red) + Int(green) + Int(blue)) / 3
        let step = min(23, max(0, (mean - 3) / 10))
        let grey = 8 + 10 * step
        let isGrey = distance(grey, grey, grey) < distance(levels[r], levels[g], levels[b])
        return isGrey ? 232 + step : 16 + 36 * r + 6 * g + b
    }

    /// The sequence that makes a terminal write (or, as `background`, fill) in this colour; empty without colours.
    func escape(_ colors: Terminal.Colors, background: Bool = false) -> String {
        let target = background ? 48 : 38
        return switch colors {
        case .none: ""
        case .indexed: "\u{1b}[\(target);5;\(xtermIndex)m"
        case .direct: "\u{1b}[\(target);2;\(red);\(green);\(blue)m"
        }
    }
}

/// Colours for magnitudes: dark for small, bright for large.
///
/// The path runs through the OKLCh space (Björn Ottosson, "A perceptual color space for image processing", 2020) with evenly
/// rising lightness, so that equal steps look equal, also in print and to colour-blind readers; hue turns from indigo through teal
/// to yellow.
public enum ColorMap {
    /// The colour of a fraction; what lies outside of 0...1 gets the colour of the nearer end.
    public static func color(_ fraction: Float) -> RGB {
        table[Int((min(max(fraction, 0), 1) * 255).rounded())]
    }

    /// Values that are no finite number.
    public static let notFinite = RGB(214, 39, 146)

    private static let table: [RGB] = (0...255).map { step in
        let t = Double(step) / 255
        let lightness = 0.20 + 0.74 * t
        let hue = (285 - 175 * t) * .pi / 180
        var chroma = 0.14
        // sRGB has less room at the ends and in the teals: go nearly as far out as it has.
        while chroma > 0, !isShown(lightness: lightness, a: chroma * cos(hue), b: chroma * sin(hue)) { chroma -= 0.001 }
        return rgb(lightness: lightness, a: 0.94 * chroma * cos(hue), b: 0.94 * chroma * sin(hue))
    }

    private static func isShown(lightness: Double, a: Double, b: Double) -> Bool {
        linear(lightness: lightness, a: a, b: b).allSatisfy { (0...1).contains($0) }
    }

    private static func rgb(lightness: Double, a: Double, b: Double) -> RGB {
        let components = linear(lightness: lightness, a: a, b: b).map(component)
        return RGB(components[0], components[1], components[2])
    }

    /// OKLab to linear sRGB: red, green, blue, of which a screen shows 0...1.
    private static func linear(lightness: Double, a: Double, b: Double) -> [Double] {
        let l = cube(lightness + 0.3963377774 * a + 0.2158037573 * b)
        let m = cube(lightness - 0.1055613458 * a - 0.0638541728 * b)
        let s = cube(lightness - 0.0894841775 * a - 1.2914855480 * b)
        return [
            4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
            -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
            -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
        ]
    }

    private static func cube(_ value: Double) -> Double {
        value * value * value
    }

    private static func component(_ linear: Double) -> UInt8 {
        let clipped = min(max(linear, 0), 1)
        let encoded = clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * pow(clipped, 1 / 2.4) - 0.055
        return UInt8((encoded * 255).rounded())
    }
}

/// Colours of what is not data.
enum Palette {
    static let ink = RGB(33, 37, 41)
    static let faint = RGB(108, 117, 125)
    static let grid = RGB(222, 226, 230)
    static let paper = RGB(255, 255, 255)
    static let rowMark = RGB(232, 89, 12)
    static let columnMark = RGB(28, 126, 214)
    /// Series of a plot, told apart also in grey and by the colour-blind.
    static let series = [
        RGB(28, 110, 190), RGB(226, 103, 12), RGB(20, 150, 110), RGB(170, 60, 150), RGB(120, 120, 30), RGB(90, 90, 110),
    ]
}
