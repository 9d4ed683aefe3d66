#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Numbers as people read them. The same text in every locale.
public enum Format {
    /// A count with its thousands apart: `1,234,567`.
    public static func count(_ value: Int) -> String {
        var digits = String(value.magnitude)
        var groups: [Substring] = []
        while digits.count > 3 {
            groups.insert(digits.suffix(3), at: 0)
            digits = String(digits.dropLast(3))
        }
        return (value < 0 ? "-" : "") + ([Substring(digits)] + groups).joined(separator: ",")
    }

    /// Bytes in binary units, three digits: `512 B`, `1.50 KiB`, `40.5 GiB`.
    public static func bytes(_ value: Int) -> String {
        guard value.magnitude >= 1024 else { return "\(value) B" }
        var scaled = Double(value)
        for unit in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            scaled /= 1024
            // 1023.7 would be shown as 1024 of this unit.
            if abs(scaled) < 1023.5 || unit == "EiB" { return threeDigits(scaled) + " " + unit }
        }
        return "\(value) B"
    }

    /// Seconds in the unit that fits: `830 µs`, `12.3 ms`, `4.56 s`, `3 min 20 s`, `2 h 05 min`.
    public static func duration(seconds: Double) -> String {
        guard seconds.isFinite else { return "–" }
        guard seconds >= 0 else { return "-" + duration(seconds: -seconds) }
        switch seconds {
        case 0: return "0 s"
        case ..<999.5e-9: return threeDigits(seconds * 1e9) + " ns"
        case ..<999.5e-6: return threeDigits(seconds * 1e6) + " µs"
        case ..<999.5e-3: return threeDigits(seconds * 1e3) + " ms"
        case ..<59.95: return threeDigits(seconds) + " s"
        case ..<3_599.5:
            let whole = Int(seconds.rounded())
            return "\(whole / 60) min \(twoDigits(whole % 60)) s"
        case ..<(1e6 * 3600):
            let minutes = Int((seconds / 60).rounded())
            return "\(count(minutes / 60)) h \(twoDigits(minutes % 60)) min"
        default: return significant(seconds / 3600, digits: 3) + " h"
        }
    }

    public static func duration(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        return self.duration(seconds: Double(seconds) + Double(attoseconds) * 1e-18)
    }

    /// A share, 1 being all of it: `12.3%`.
    public static func percentage(_ fraction: Double, places: Int = 1) -> String {
        fraction.isFinite ? decimal(fraction * 100, places: places) + "%" : "–"
    }

    /// A number with this many digits behind the point, halves rounded away from zero.
    ///
    /// - Parameter places: 0 to 12.
    public static func decimal(_ value: Double, places: Int) -> String {
        precondition((0...12).contains(places), "0 to 12 places")
        guard value.isFinite else { return value.isNaN ? "nan" : value < 0 ? "-inf" : "inf" }
        let scale = pow(10, Double(places))
        let scaled = (abs(value) * scale).rounded()
        // Beyond this a Double has no digits behind the point, nor all of those before it.
        guard scaled < 1e18 else { return "\(value)" }
        let digits = UInt64(scaled)
        let sign = value < 0 && digits > 0 ? "-" : ""
        guard places > 0 else { return sign + String(digits) }
        let unit = UInt64(scale)
        let fraction = String(digits % unit)
        return sign + String(digits / unit) + "." + String(repeating: "0", count: places - fraction.count) + fraction
    }

    /// A number with this many significant digits, in scientific notation where it is very small or large: `0.157`, `2.10e-07`.
    ///
    /// - Parameter digits: 1 to 9.
    public static func significant(_ value: Double, digits: Int) -> String {
        precondition((1...9).contains(digits), "1 to 9 digits")
        guard value.isFinite, value != 0 else { return value == 0 ? "0" : decimal(value, places: 0) }
        var exponent = Int(log10(abs(value)).rounded(.down))
        // Rounding may carry into one more digit: 9.996 with three digits is 10.0.
        if (abs(value) / pow(10, Double(exponent - digits + 1))).rounded() >= pow(10, Double(digits)) { exponent += 1 }
        if (-4..<max(6, digits)).contains(exponent) {
            return decimal(value, places: max(0, digits - 1 - exponent))
        }
        let mantissa = decimal(value / pow(10, Double(exponent)), places: digits - 1)
        let power = abs(exponent) < 10 ? "0\(abs(exponent))" : "\(abs(exponent))"
        return mantissa + "e" + (exponent < 0 ? "-" : "+") + power
    }

    // MARK: - Details

    /// At least three digits, never fewer places than none: 1.50, 40.5, 1023.
    private static func threeDigits(_ value: Double) -> String {
        switch abs(value) {
        case ..<9.995: decimal(value, places: 2)
        case ..<99.95: decimal(value, places: 1)
        default: decimal(value, places: 0)
        }
    }

    private static func twoDigits(_ value: Int) -> String {
        value < 10 ? "0\(value)" : "\(value)"
    }
}
