import ArgumentParser

/// A time span in seconds, minutes, hours or days: `90s`, `30m`, `24h`, `7d`. A bare number is in seconds.
struct DurationArgument: ExpressibleByArgument {
    var seconds: Int64

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && $0.isNumber }
        guard let count = Int64(digits) else { return nil }
        let units: [String: Int64] = ["": 1, "s": 1, "m": 60, "h": 3600, "d": 86400]
        guard let unit = units[argument[digits.endIndex...].lowercased()] else { return nil }
        let (seconds, overflow) = count.multipliedReportingOverflow(by: unit)
        guard !overflow else { return nil }
        self.seconds = seconds
    }
}
