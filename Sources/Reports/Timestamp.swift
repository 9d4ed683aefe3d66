import FoundationEssentials

/// A Unix time as people read it: `2026-03-01T12:00:00Z`.
package func timestamp(_ seconds: Int64) -> String {
    Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
}
