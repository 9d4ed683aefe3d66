extension StoreStatistics {
    /// What has happened to a store since it was created. What processes have looked up in the last seconds and not yet written down
    /// is not in it.
    public struct Usage: Hashable, Sendable {
        /// Prefixes looked up, and those of which at least one token was stored.
        public var lookups = 0
        public var hits = 0
        /// Tokens of all those prefixes, and how many of them were stored.
        public var tokensLookedUp = 0
        public var tokensMatched = 0
        /// Pages and tail pieces evicted to make room, and the bytes of their images.
        public var evictedPages = 0
        public var evictedBytes = 0
        /// The same, dropped because they had been unused for too long.
        public var expiredPages = 0
        public var expiredBytes = 0
        /// Videos and sessions that were gone with them.
        public var evictedSequences = 0
        public var demotedPages = 0
        /// Bytes of page images that were not stored because nothing could be evicted for them.
        public var refusedBytes = 0

        /// The share of the tokens looked up that were stored; 0 when none were looked up.
        public var tokenHitRate: Double { tokensLookedUp > 0 ? Double(tokensMatched) / Double(tokensLookedUp) : 0 }
    }

    /// Pages that were last used about as long ago.
    public struct AgeClass: Hashable, Sendable {
        /// They were used less than so many seconds ago, and no less than the class before says; nil for all that are older.
        public var secondsBelow: Int64?
        /// Pages and tail pieces.
        public var pages = 0
        /// Bytes of their page images.
        public var bytes = 0

        static let all = [60, 600, 3600, 6 * 3600, 86400, 7 * 86400, nil].map { AgeClass(secondsBelow: $0) }
    }
}

extension StoreStatistics.Usage {
    init(_ counters: CounterRecord) {
        lookups = Int(clamping: counters.lookups)
        hits = Int(clamping: counters.hits)
        tokensLookedUp = Int(clamping: counters.tokensLookedUp)
        tokensMatched = Int(clamping: counters.tokensMatched)
        evictedPages = Int(clamping: counters.evictedPages)
        evictedBytes = Int(clamping: counters.evictedBytes)
        expiredPages = Int(clamping: counters.expiredPages)
        expiredBytes = Int(clamping: counters.expiredBytes)
        evictedSequences = Int(clamping: counters.evictedHeads)
        demotedPages = Int(clamping: counters.demotedPages)
        refusedBytes = Int(clamping: counters.refusedBytes)
    }
}
