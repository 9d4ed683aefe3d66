package import ReelKV

/// What has happened to a store, as `stats` shows it.
package struct UsageReport: Encodable {
    package struct Age: Encodable {
        /// Missing for what is older than all others.
        package var secondsBelow: Int64?
        package var pages: Int
        package var bytes: Int

        enum CodingKeys: String, CodingKey {
            case pages, bytes
            case secondsBelow = "seconds_below"
        }
    }

    package var lookups: Int
    package var hits: Int
    package var misses: Int
    package var tokensLookedUp: Int
    package var tokensMatched: Int
    package var tokenHitRate: Double
    package var appendedBytes: Int
    package var copiedBytes: Int
    package var compactedVolumes: Int
    package var demotedPages: Int
    package var demotedBytes: Int
    package var writeAmplification: Double
    package var evictedPages: Int
    package var evictedBytes: Int
    package var expiredPages: Int
    package var expiredBytes: Int
    package var evictedSequences: Int
    package var refusedBytes: Int
    package var ages: [Age]

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

    package init(_ statistics: StoreStatistics) {
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
}
