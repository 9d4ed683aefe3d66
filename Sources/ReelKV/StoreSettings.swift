public import KVCodec
import LMDB

/// How much a store may hold, and what goes when it holds too much. Kept in the store, for every process that opens it.
public struct StoreSettings: Hashable, Sendable {
    /// Pages that are encoded anew, smaller and lossier, before any are evicted.
    public struct Demotion: Hashable, Sendable {
        public var profile: Profile
        /// Only pages unused for so long, in seconds.
        public var unusedSeconds: Int

        public init(profile: Profile, unusedSeconds: Int = 0) {
            self.profile = profile
            self.unusedSeconds = unusedSeconds
        }
    }

    /// Bytes that all files of the store may take together; nil for no bound.
    public var quotaBytes: Int?
    /// Bytes that the file system must keep free; nil for no bound.
    public var freeBytesMin: Int?
    public var policy: EvictionPolicy = .adaptive
    /// Seconds after which an unused page is dropped, whether room is needed or not; nil for never.
    public var unusedSecondsMax: Int?
    /// nil when pages are only evicted.
    public var demotion: Demotion?

    public init() {}

    /// The least that a store can be asked to stay within: an index, a volume and their lock files.
    public static let quotaBytesMin = 1 << 20
}

extension StoreSettings {
    init(_ record: SettingsRecord) throws {
        guard let policy = EvictionPolicy(rawValue: record.policy) else {
            throw StoreError(.damaged, "the store's settings name policy \(record.policy), which this ReelKV does not know")
        }
        quotaBytes = record.quotaBytes == 0 ? nil : Int(clamping: record.quotaBytes)
        freeBytesMin = record.freeBytesMin == 0 ? nil : Int(clamping: record.freeBytesMin)
        self.policy = policy
        unusedSecondsMax = record.unusedSecondsMax == 0 ? nil : Int(clamping: record.unusedSecondsMax)
        if record.flags & SettingsRecord.demotesFlag != 0 {
            guard let profile = Profile.numbered(record.demoteProfile) else {
                throw StoreError(.damaged, "the store's settings name profile \(record.demoteProfile), which does not exist")
            }
            demotion = Demotion(profile: profile, unusedSeconds: Int(clamping: record.demoteSeconds))
        }
    }

    var record: SettingsRecord {
        SettingsRecord(
            quotaBytes: UInt64(quotaBytes ?? 0), freeBytesMin: UInt64(freeBytesMin ?? 0),
            unusedSecondsMax: UInt64(unusedSecondsMax ?? 0), demoteSeconds: UInt64(demotion?.unusedSeconds ?? 0),
            policy: policy.rawValue, flags: demotion == nil ? 0 : SettingsRecord.demotesFlag,
            demoteProfile: demotion?.profile.id ?? 0)
    }

    func check() throws {
        if let quotaBytes, quotaBytes < Self.quotaBytesMin {
            throw StoreError(.invalidArgument, "a quota is at least \(Self.quotaBytesMin >> 20) MiB, not \(quotaBytes) bytes")
        }
        let seconds = [unusedSecondsMax, demotion?.unusedSeconds].compactMap(\.self)
        guard freeBytesMin ?? 0 >= 0, seconds.allSatisfy({ $0 >= 0 }) else {
            throw StoreError(.invalidArgument, "sizes and times must not be negative")
        }
    }
}

// MARK: - Reading and changing

extension Store {
    public func settings() throws -> StoreSettings { try read { try StoreSettings(index.settings(in: $0)) } }

    /// Changes the settings, for every process that has the store open. What a new bound leaves no room for goes with the next
    /// write, or at once by `makeRoom`.
    ///
    /// - Throws: `StoreError` with the codes `invalidArgument`, `readOnly`.
    public func update(_ change: (inout StoreSettings) throws -> Void) throws {
        try write { transaction in
            var settings = try StoreSettings(index.settings(in: transaction))
            let policy = settings.policy
            try change(&settings)
            try settings.check()
            try index.putSettings(settings.record, in: transaction)
            try saveIdentity(in: transaction)
            if settings.policy != policy { try index.rankAll(by: settings.policy, in: transaction) }
        }
    }

    /// Bytes of page images that a tenant may have stored; nil for no bound of its own.
    ///
    /// - Throws: `StoreError.notFound`.
    public func quota(ofTenant name: String) throws -> Int? {
        try read { transaction in
            guard let record = try index.tenantRecord(named: name, in: transaction) else { throw Self.noTenant(name) }
            return record.quotaBytes == 0 ? nil : Int(clamping: record.quotaBytes)
        }
    }

    /// Bounds what a tenant may have stored, in bytes of page images; nil for no bound. A tenant that is new is made.
    public func setQuota(_ bytes: Int?, ofTenant name: String) throws {
        if let bytes, bytes <= 0 { throw StoreError(.invalidArgument, "a tenant's quota has at least one byte, not \(bytes)") }
        _ = try makeTenant(named: name)
        try write { transaction in
            guard var tenant = try index.tenant(named: name, in: transaction) else { throw Self.noTenant(name) }
            tenant.record.quotaBytes = UInt64(bytes ?? 0)
            try index.putTenant(tenant, in: transaction)
            try saveIdentity(in: transaction)
        }
    }
}
