import KVCodec
import LMDB

// The store's settings and counts, and what each tenant has stored.

extension Index {
    static let settingsKey = "settings"
    static let countersKey = "counters"

    func settings(in transaction: borrowing some Transaction & ~Copyable) throws -> SettingsRecord {
        try fixedRecord(Self.settingsKey, in: transaction) ?? .none
    }

    func putSettings(_ settings: SettingsRecord, in transaction: borrowing WriteTransaction) throws {
        try putFixedRecord(Self.settingsKey, settings, in: transaction)
    }

    func counters(in transaction: borrowing some Transaction & ~Copyable) throws -> CounterRecord {
        try fixedRecord(Self.countersKey, in: transaction) ?? .zero
    }

    func updateCounters(
        in transaction: borrowing WriteTransaction, _ change: (inout CounterRecord) -> Void
    ) throws {
        var counters = try counters(in: transaction)
        change(&counters)
        try putFixedRecord(Self.countersKey, counters, in: transaction)
    }

    func count(copiedBytes: Int, in transaction: borrowing WriteTransaction) throws {
        try updateCounters(in: transaction) { $0.copiedBytes += UInt64(copiedBytes) }
    }

    /// A record of the store's own under a name; nil when it was never put.
    func fixedRecord<Record: FixedLayoutRecord>(
        _ key: String, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Record? {
        try stores.withValue(key, in: transaction) { bytes in
            guard let record = Record(at: 0, of: bytes) else {
                throw StoreError(.damaged, "the store's record '\(key)' is damaged; run `reelkv verify`")
            }
            return record
        }
    }

    func putFixedRecord(
        _ key: String, _ record: some FixedLayoutRecord, in transaction: borrowing WriteTransaction
    ) throws {
        var bytes: [UInt8] = []
        bytes.append(record)
        try stores.put(key, bytes, in: transaction)
    }

    // MARK: - Tenants' accounts

    func account(
        of tenant: UInt32, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> AccountRecord {
        let found = try accounts.withValue(Self.accountKey(tenant), in: transaction) { bytes in
            guard let record = AccountRecord(at: 0, of: bytes) else {
                throw StoreError(.damaged, "a tenant's account is damaged; run `reelkv verify`")
            }
            return record
        }
        return found ?? AccountRecord(liveBytes: 0, livePages: 0)
    }

    func updateAccount(
        _ tenant: UInt32, in transaction: borrowing WriteTransaction, _ change: (inout AccountRecord) -> Void
    ) throws {
        var account = try account(of: tenant, in: transaction)
        change(&account)
        if account.livePages == 0 {
            _ = try accounts.delete(Self.accountKey(tenant), in: transaction)
        } else {
            var bytes: [UInt8] = []
            bytes.append(account)
            try accounts.put(Self.accountKey(tenant), bytes, in: transaction)
        }
    }

    static func accountKey(_ tenant: UInt32) -> [UInt8] {
        var key: [UInt8] = []
        key.appendBigEndian(tenant)
        return key
    }
}

extension SettingsRecord {
    static let demotesFlag: UInt8 = 1

    /// What holds until something is set: no bounds.
    static let none = SettingsRecord(
        quotaBytes: 0, freeBytesMin: 0, unusedSecondsMax: 0, demoteSeconds: 0, policy: 0, flags: 0, demoteProfile: 0)
}

extension CounterRecord {
    static let zero = CounterRecord(
        accesses: 0, lookups: 0, hits: 0, tokensLookedUp: 0, tokensMatched: 0, appendedBytes: 0, copiedBytes: 0,
        demotedBytes: 0, demotedPages: 0, evictedBytes: 0, evictedPages: 0, expiredBytes: 0, expiredPages: 0,
        evictedHeads: 0, compactedVolumes: 0, refusedBytes: 0)
}
