import KVCodec
import ReelKV
import Rendering
import Reports

/// The bounds of a store, and how much of them is used.
struct QuotaReport: Encodable {
    var quotaBytes: Int?
    var occupiedBytes: Int
    var keepFreeBytes: Int?
    var freeBytes: Int
    var policy: String
    var ttlSeconds: Int?
    var demoteTo: String?
    var demoteAfterSeconds: Int?
    var tenants: [TenantQuotaReport]

    enum CodingKeys: String, CodingKey {
        case policy, tenants
        case quotaBytes = "quota_bytes"
        case occupiedBytes = "occupied_bytes"
        case keepFreeBytes = "keep_free_bytes"
        case freeBytes = "free_bytes"
        case ttlSeconds = "ttl_seconds"
        case demoteTo = "demote_to"
        case demoteAfterSeconds = "demote_after_seconds"
    }

    init(_ store: Store) throws {
        let (settings, space) = (try store.settings(), try store.space())
        quotaBytes = settings.quotaBytes
        occupiedBytes = space.occupiedBytes
        keepFreeBytes = settings.freeBytesMin
        freeBytes = space.freeBytes
        policy = settings.policy.name
        ttlSeconds = settings.unusedSecondsMax
        demoteTo = settings.demotion.map { Profile.name(of: $0.profile.id) }
        demoteAfterSeconds = settings.demotion?.unusedSeconds
        tenants = space.tenants.map(TenantQuotaReport.init)
    }

    func tenant(named name: String) throws -> TenantQuotaReport {
        guard let tenant = tenants.first(where: { $0.tenant == name }) else {
            throw Failure("no tenant '\(name)' in the store")
        }
        return tenant
    }

    func text() -> String {
        let quota = quotaBytes.map { "\(Format.bytes($0)), \(Self.share(occupiedBytes, of: $0))" } ?? "none"
        var text = """
            quota      \(quota)
            in use     \(Format.bytes(occupiedBytes))
            keep free  \(keepFreeBytes.map(Format.bytes) ?? "none"); the file system has \(Format.bytes(freeBytes)) free
            policy     \(policy)
            ttl        \(ttlSeconds.map(Self.time) ?? "none")
            demotion   \(demotion)

            """
        guard !tenants.isEmpty else { return text }
        var table = TextTable(.left("TENANT"), .right("QUOTA"), .right("LIVE"), .right("USED"), .right("PAGES"))
        for tenant in tenants { tenant.add(to: &table) }
        text += "\n" + table.text()
        return text
    }

    private var demotion: String {
        guard let demoteTo else { return "none" }
        return "to \(demoteTo)" + (demoteAfterSeconds.map { $0 > 0 ? ", what is unused for \(Self.time($0))" : "" } ?? "")
    }

    fileprivate static func share(_ bytes: Int, of quota: Int) -> String {
        "\(Format.percentage(Double(bytes) / Double(quota))) of it used"
    }

    /// As the options take it: in the largest unit that says it whole.
    private static func time(_ seconds: Int) -> String {
        let unit = [("d", 86400), ("h", 3600), ("m", 60)].first { seconds >= $0.1 && seconds % $0.1 == 0 }
        return unit.map { "\(seconds / $0.1)\($0.0)" } ?? "\(seconds)s"
    }
}

/// A tenant's bound, and how much of it is used.
struct TenantQuotaReport: Encodable {
    var tenant: String
    var quotaBytes: Int?
    var liveBytes: Int
    var livePages: Int

    enum CodingKeys: String, CodingKey {
        case tenant
        case quotaBytes = "quota_bytes"
        case liveBytes = "live_bytes"
        case livePages = "live_pages"
    }

    init(_ tenant: SpaceInfo.Tenant) {
        self.tenant = tenant.name
        quotaBytes = tenant.quotaBytes
        liveBytes = tenant.liveBytes
        livePages = tenant.livePages
    }

    func add(to table: inout TextTable) {
        table.append(
            tenant, quotaBytes.map(Format.bytes) ?? "none", Format.bytes(liveBytes),
            quotaBytes.map { Format.percentage(Double(liveBytes) / Double($0)) } ?? "-", Format.count(livePages))
    }

    func text() -> String {
        let quota = quotaBytes.map { "\(Format.bytes($0)), \(QuotaReport.share(liveBytes, of: $0))" } ?? "none"
        return """
            tenant     \(singleLine(tenant))
            quota      \(quota)
            in use     \(Format.bytes(liveBytes)) in \(counted(livePages, "page"))

            """
    }
}
