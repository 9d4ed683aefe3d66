import ArgumentParser
import KVCodec
import ReelKV

struct QuotaSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Set bounds, and evict at once what they leave no room for.",
        discussion: """
            Changes only what is named; 'none' takes a bound away. The settings are the store's own and hold for every process. A \
            store that cannot hold more evicts what is worth least, and refuses what it cannot make room for. When what is \
            pinned exceeds a new bound the bound holds all the same, and the exit status is 1.

            Examples:
              reelkv quota set --bytes 50GiB --keep-free 10GiB
              reelkv quota set --ttl 7d --demote-to vidkv-1.5-1.58 --demote-after 1d
              reelkv quota set --tenant acme --bytes 5GiB
            """)

    @OptionGroup var store: StoreOption

    @Option(
        help: ArgumentHelp(
            "Bytes that all files of the store may take, or the page images of --tenant, such as 50GiB; or none.",
            valueName: "size"))
    var bytes: Limit<ByteSize>?

    @Option(help: ArgumentHelp("Bytes that the file system keeps free, such as 10GiB; or none.", valueName: "size"))
    var keepFree: Limit<ByteSize>?

    @Option(help: "What goes first when room is needed.")
    var policy: PolicyArgument?

    @Option(help: ArgumentHelp("Drop pages unused for this time: 90s, 30m, 24h, 7d; or none.", valueName: "time"))
    var ttl: Limit<DurationArgument>?

    @Option(help: ArgumentHelp("Encode pages anew with this profile before any are evicted.", valueName: "profile"))
    var demoteTo: Limit<ProfileArgument>?

    @Option(help: ArgumentHelp("Demote only pages unused for this time: 90s, 30m, 24h, 7d.", valueName: "time"))
    var demoteAfter: DurationArgument?

    @Option(help: "Bound this tenant: the page images that it may have stored.")
    var tenant: String?

    @OptionGroup var output: OutputOption

    func validate() throws {
        let concernsStore = keepFree != nil || policy != nil || ttl != nil || demoteTo != nil || demoteAfter != nil
        if tenant != nil, concernsStore || bytes == nil {
            throw ValidationError("A tenant has a bound in bytes and no other: give --tenant with --bytes alone.")
        }
        if bytes == nil, !concernsStore { throw ValidationError("Nothing to set: name at least one bound.") }
        if ttl?.value?.seconds == 0 {
            throw ValidationError("--ttl 0 would drop every page: give a time, or none for pages to stay.")
        }
        if demoteTo?.value?.profile.isExact == true {
            throw ValidationError("Pages cannot be demoted to the profile exact: name a lossy one, or none.")
        }
        if let demoteTo, demoteTo.value == nil, demoteAfter != nil {
            throw ValidationError("--demote-to none takes no --demote-after.")
        }
    }

    func run() throws {
        let store = try store.openToChange()
        if let tenant {
            try store.setQuota(bytes?.value?.bytes, ofTenant: tenant)
        } else {
            try store.update { try change(&$0) }
        }
        let evicted: EvictionReport
        do {
            evicted = try tenant.map(store.makeRoom(ofTenant:)) ?? store.makeRoom()
        } catch let error as StoreError where error.code == .quotaExceeded {
            throw Failure("the bound is set, but cannot be met: \(error.message)")
        }
        try output.write(QuotaChange(evicted: EvictionSummary(evicted), quota: QuotaReport(store))) { change in
            try change.evicted.text() + "\n"
                + (tenant.map { try change.quota.tenant(named: $0).text() } ?? change.quota.text())
        }
    }

    private func change(_ settings: inout StoreSettings) throws {
        if let bytes { settings.quotaBytes = bytes.value?.bytes }
        if let keepFree { settings.freeBytesMin = keepFree.value?.bytes }
        if let policy { settings.policy = policy.policy }
        if let ttl { settings.unusedSecondsMax = ttl.value.map { Int($0.seconds) } }
        if let demoteTo {
            let seconds = settings.demotion?.unusedSeconds ?? 0
            settings.demotion = demoteTo.value.map { StoreSettings.Demotion(profile: $0.profile, unusedSeconds: seconds) }
        }
        if let demoteAfter {
            guard settings.demotion != nil else {
                throw Failure("no page is demoted: name a profile with --demote-to as well")
            }
            settings.demotion?.unusedSeconds = Int(demoteAfter.seconds)
        }
    }
}

/// What `quota set` did.
struct QuotaChange: Encodable {
    var evicted: EvictionSummary
    var quota: QuotaReport
}
