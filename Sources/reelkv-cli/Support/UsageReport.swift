import ReelKV
import Rendering

/// What has happened to a store, as `stats` shows it.
struct UsageReport: Encodable {
    struct Age: Encodable {
        /// Missing for what is older than all others.
        var secondsBelow: Int64?
        var pages: Int
        var bytes: Int

        enum CodingKeys: String, CodingKey {
            case pages, bytes
            case secondsBelow = "seconds_below"
        }
    }

    var lookups: Int
    var hits: Int
    var misses: Int
    var tokensLookedUp: Int
    var tokensMatched: Int
    var tokenHitRate: Double
    var appendedBytes: Int
    var copiedBytes: Int
    var compactedVolumes: Int
    var demotedPages: Int
    var demotedBytes: Int
    var writeAmplification: Double
    var evictedPages: Int
    var evictedBytes: Int
    var expiredPages: Int
    var expiredBytes: Int
    var evictedSequences: Int
    var refusedBytes: Int
    var ages: [Age]

    enum CodingKeys: String, CodingKey {
        case lookups, hits, misses, ages
        case tokensLookedUp = "tokens_looked_up"
        case tokensMatched = "tokens_matched"
        case tokenHitRate = "token_hit_rate"
        case appendedBytes = "appended_bytes"
        case copiedBytes = "copied_bytes"
        case compactedVolumes = "compacted_volumes"
        case demotedPages = "demoted_pages"
        case demotedBytes = "demoted_bytes"
        case writeAmplification = "write_amplification"
        case evictedPages = "evicted_pages"
        case evictedBytes = "evicted_bytes"
        case expiredPages = "expired_pages"
        case expiredBytes = "expired_bytes"
        case evictedSequences = "evicted_sequences"
        case refusedBytes = "refused_bytes"
    }

    init(_ statistics: StoreStatistics) {
        let usage = statistics.usage
        lookups = usage.lookups
        hits = usage.hits
        misses = usage.lookups - usage.hits
        tokensLookedUp = usage.tokensLookedUp
        tokensMatched = usage.tokensMatched
        tokenHitRate = usage.tokenHitRate
        appendedBytes = statistics.appendedBytes
        copiedBytes = statistics.copiedBytes
        compactedVolumes = statistics.compactedVolumes
        demotedPages = usage.demotedPages
        demotedBytes = statistics.demotedBytes
        writeAmplification = statistics.writeAmplification
        evictedPages = usage.evictedPages
        evictedBytes = usage.evictedBytes
        expiredPages = usage.expiredPages
        expiredBytes = usage.expiredBytes
        evictedSequences = usage.evictedSequences
        refusedBytes = usage.refusedBytes
        ages = statistics.ages.map { Age(secondsBelow: $0.secondsBelow, pages: $0.pages, bytes: $0.bytes) }
    }

    // MARK: - Text

    /// Nothing has happened yet.
    var isEmpty: Bool {
        [lookups, appendedBytes, evictedPages, expiredPages, demotedPages, refusedBytes].allSatisfy { $0 == 0 }
            && ages.allSatisfy { $0.pages == 0 }
    }

    func text(terminal: Terminal) -> String {
        """
        look-ups   \(Format.count(lookups)): \(counted(hits, "hit")), \(Format.count(misses)) \(misses == 1 ? "miss" : "misses")
        tokens     \(Format.count(tokensMatched)) of \(Format.count(tokensLookedUp)) looked up were stored: \
        \(Format.percentage(tokenHitRate))
        written    \(Format.bytes(appendedBytes)) appended, \(Format.bytes(copiedBytes)) copied, \
        \(Format.bytes(demotedBytes)) demoted: write amplification \(Format.decimal(writeAmplification, places: 2))
        evicted    \(counted(evictedPages, "page")) (\(Format.bytes(evictedBytes))); expired \
        \(counted(expiredPages, "page")) (\(Format.bytes(expiredBytes))); \
        \(counted(evictedSequences, "sequence")) gone with them
        demoted    \(counted(demotedPages, "page"))
        refused    \(Format.bytes(refusedBytes))

        """ + agesText(terminal)
    }

    /// A bar for each class of age, as long as the bytes in it.
    private func agesText(_ terminal: Terminal) -> String {
        let most = ages.map(\.bytes).max() ?? 0
        guard most > 0 else { return "" }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]
        let (unit, shift) = units.last { most >> $0.1 > 0 } ?? units[0]
        let plot = BarPlot(
            title: "Pages by the time since their last use", valueName: unit, labels: ages.map(Self.label),
            series: [Series("", ages.map { Double($0.bytes) / Double(1 << shift) })])
        return "\n" + plot.text(terminal: terminal)
    }

    private static func label(_ age: Age) -> String {
        guard let seconds = age.secondsBelow else { return "older" }
        return "< " + (seconds < 3600 ? "\(seconds / 60) min" : seconds < 86400 ? "\(seconds / 3600) h" : "\(seconds / 86400) d")
    }
}
