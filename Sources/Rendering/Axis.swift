#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// How values are laid out along an axis or a colour scale.
public enum Scale: Sendable, Hashable {
    case linear
    /// By their logarithm; what is not positive lies at the lower end.
    case logarithmic
}

/// A range of values with the places where it is labelled.
struct Axis: Sendable {
    struct Tick: Sendable, Hashable {
        let value: Double
        let label: String
    }

    let lower: Double
    let upper: Double
    let scale: Scale
    let ticks: [Tick]

    /// An axis for magnitudes, which are never negative; what is not finite is left out.
    ///
    /// A linear one begins at 0. A logarithmic one begins at the smallest positive value, but spans at most `decadeCountMax`
    /// decades.
    ///
    /// - Parameter roundsOut: whether the axis goes on to the next ticks outside of the values.
    init(
        magnitudes values: some Sequence<Double>, scale: Scale, tickCountMax: Int, roundsOut: Bool,
        decadeCountMax: Double = 3
    ) {
        var largest = 0.0
        var smallest = Double.infinity
        for value in values where value.isFinite && value > 0 {
            largest = max(largest, value)
            smallest = min(smallest, value)
        }
        if largest == 0 { (smallest, largest) = (0.1, 1) }
        self.scale = scale
        switch scale {
        case .linear:
            let step = Axis.step(largest / Double(tickCountMax))
            lower = 0
            // The factor keeps a value that is a tick, but for rounding, from getting another one.
            upper = roundsOut ? (largest / step * (1 - 1e-12)).rounded(.up) * step : largest
            ticks = (0...Int(upper / step * (1 + 1e-12))).map { index in
                let value = Double(index) * step
                return Tick(value: value, label: Axis.label(value, step: step))
            }
        case .logarithmic:
            // A range of one value would have no width.
            let low = min(max(smallest, largest / pow(10, decadeCountMax)), largest / 2)
            lower = roundsOut ? pow(10, (log10(low) + 1e-9).rounded(.down)) : low
            upper = roundsOut ? pow(10, (log10(largest) - 1e-9).rounded(.up)) : largest
            ticks = Axis.decades(lower, upper, tickCountMax: tickCountMax)
        }
    }

    /// Where `value` lies, 0 being the lower and 1 the upper end; clipped to these.
    func fraction(_ value: Double) -> Double {
        let fraction =
            switch scale {
            case .linear: (value - lower) / (upper - lower)
            case .logarithmic: value > 0 ? log10(value / lower) / log10(upper / lower) : 0
            }
        return min(max(fraction, 0), 1)
    }

    // MARK: - Ticks

    /// The least of 1, 2, 5, 10, 20, 50, … times a power of ten that is not below `value`.
    static func step(_ value: Double) -> Double {
        let power = pow(10, log10(value).rounded(.down))
        return [1, 2, 5].map { $0 * power }.first { $0 >= value * (1 - 1e-9) } ?? 10 * power
    }

    /// Whole numbers of `range` that divide it evenly: at most `countMax` of them, where it is not empty.
    ///
    /// - Parameter isBinary: whether steps are powers of two, as for channels, or round decimal numbers.
    static func wholeTicks(_ range: Range<Int>, countMax: Int, isBinary: Bool) -> [Int] {
        let wanted = max(1, Double(range.count) / Double(max(1, countMax)))
        let step = isBinary ? Int(exp2(log2(wanted).rounded(.up))) : max(1, Int(Axis.step(wanted)))
        let first = (range.lowerBound + step - 1) / step * step
        return Array(stride(from: first, to: range.upperBound, by: step))
    }

    private static func decades(_ lower: Double, _ upper: Double, tickCountMax: Int) -> [Tick] {
        let exponents =
            Int(
                (log10(lower) - 1e-9).rounded(.up))...max(
                Int((log10(lower) - 1e-9).rounded(.up)), Int((log10(upper) + 1e-9).rounded(.down)))
        let stride = (exponents.count + tickCountMax - 1) / tickCountMax
        return exponents.filter { $0.isMultiple(of: stride) || exponents.count == 1 }.map { exponent in
            let value = pow(10, Double(exponent))
            return Tick(value: value, label: Format.significant(value, digits: 1))
        }
    }

    /// As many places as the step has; scientific where these would be too many.
    private static func label(_ value: Double, step: Double) -> String {
        let places = max(0, -Int((log10(step) + 1e-9).rounded(.down)))
        return places <= 4 && value < 1e6 ? Format.decimal(value, places: places) : Format.significant(value, digits: 2)
    }
}
