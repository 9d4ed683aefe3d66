import KVCodec
import LMDB
import Locking

/// The uses that this process has seen and not yet written down: a hit costs no write transaction. They go along with the next
/// write; a process that only reads has them written now and then (``UsageWriter``). What a crash takes of them is only some order of eviction.
final class UsageLog: Sendable {
    private struct State {
        var uses: [Digest: PageUse] = [:]
        /// In the order of the last use.
        var sequence: UInt64 = 0
        var lookups = LookupCounts()
        /// When the first came, by a clock that is never set.
        var since: Int64 = 0
    }

    private let state = Mutex(State())

    /// Uses that are gathered at most, and for how long, before they are worth a write of their own.
    private static let usesMax = 512
    private static let secondsMax: Int64 = 30

    /// Notes a looked-up prefix, and its tip where there is one.
    ///
    /// - Returns: whether it is time to write down what was gathered.
    func note(tip: Digest?, tokens: Int, matched: Int) -> Bool {
        state.withLock { state in
            state.lookups.add(tokens: tokens, matched: matched)
            return note(tip, in: &state)
        }
    }

    /// Notes a use that was no look-up: of a sequence by its name.
    func note(tip: Digest) -> Bool { state.withLock { note(tip, in: &$0) } }

    private func note(_ tip: Digest?, in state: inout State) -> Bool {
        let now = Platform.uptimeSeconds()
        if state.sequence == 0 { state.since = now }
        state.sequence += 1
        if let tip {
            let known = state.uses[tip]
            let count = known?.count ?? 0
            // in place of the store's count of accesses, which only a write can tell, the order in which they came
            state.uses[tip] = PageUse(
                count: count == .max ? count : count + 1, lastAccess: state.sequence, lastUsedSeconds: Platform.unixSeconds(),
                previousAccess: known?.lastAccess ?? 0)
        }
        return state.uses.count >= Self.usesMax || now - state.since >= Self.secondsMax
    }

    /// Takes what was gathered, so that a write can put it into the index.
    func take() -> UsageBatch? {
        state.withLock { state in
            guard state.sequence > 0 else { return nil }
            defer { state = State() }
            return UsageBatch(
                uses: state.uses.sorted { $0.value.lastAccess < $1.value.lastAccess }.map { ($0.key, $0.value) },
                accesses: state.sequence, lookups: state.lookups)
        }
    }
}

extension UsageLog {
    /// Takes back what could not be written down. Its uses count as older than those noted meanwhile.
    func putBack(_ batch: UsageBatch) {
        state.withLock { state in
            for (tip, later) in state.uses {
                state.uses[tip]?.lastAccess = later.lastAccess + batch.accesses
                if later.previousAccess > 0 { state.uses[tip]?.previousAccess = later.previousAccess + batch.accesses }
            }
            for (tip, use) in batch.uses {
                var merged = state.uses[tip] ?? use
                if state.uses[tip] != nil {
                    merged.count = merged.count > .max - use.count ? .max : merged.count + use.count
                    if merged.previousAccess == 0 { merged.previousAccess = use.lastAccess }
                }
                state.uses[tip] = merged
            }
            if state.sequence == 0 { state.since = Platform.uptimeSeconds() }
            state.sequence += batch.accesses
            state.lookups.add(batch.lookups)
        }
    }
}

/// Prefixes looked up, and what came of it.
struct LookupCounts: Hashable, Sendable {
    var lookups = 0
    var hits = 0
    var tokens = 0
    var matchedTokens = 0

    mutating func add(tokens: Int, matched: Int) {
        lookups += 1
        if matched > 0 { hits += 1 }
        self.tokens += tokens
        matchedTokens += matched
    }

    mutating func add(_ other: LookupCounts) {
        lookups += other.lookups
        hits += other.hits
        tokens += other.tokens
        matchedTokens += other.matchedTokens
    }
}

/// Uses that go into the index together, in the order in which they came.
struct UsageBatch: Sendable {
    var uses: [(tip: Digest, use: PageUse)]
    /// How far the store's count of accesses goes on by them.
    var accesses: UInt64
    var lookups: LookupCounts
}

extension Index {
    /// Puts gathered uses into the index.
    func record(_ batch: UsageBatch, in transaction: borrowing WriteTransaction) throws {
        var before: UInt64 = 0
        try updateCounters(in: transaction) { counters in
            before = counters.accesses
            counters.accesses += batch.accesses
            counters.lookups += UInt64(batch.lookups.lookups)
            counters.hits += UInt64(batch.lookups.hits)
            counters.tokensLookedUp += UInt64(batch.lookups.tokens)
            counters.tokensMatched += UInt64(batch.lookups.matchedTokens)
        }
        for (tip, use) in batch.uses {
            var use = use
            use.lastAccess += before
            if use.previousAccess > 0 { use.previousAccess += before }
            try recordUse(use, of: tip, in: transaction)
        }
        try synchronizeMemory(in: transaction)
        try saveMemory(ifDue: true, in: transaction)
    }
}
