import ReelKV
import Rendering

/// A tenant as `reelkv tenant ls` shows it.
struct TenantReport: Encodable {
    var name: String
    var encrypted: Bool
    /// Whether it can be read: it is not encrypted, or its key was given.
    var unlocked: Bool
    /// Whether some pages are still sealed with an earlier key; missing while it is locked.
    var earlierKeys: Bool?
    var created: String

    enum CodingKeys: String, CodingKey {
        case name, encrypted, unlocked, created
        case earlierKeys = "earlier_keys"
    }

    init(_ info: TenantInfo) {
        name = info.name
        encrypted = info.isEncrypted
        unlocked = info.isUnlocked
        earlierKeys = info.isUnlocked ? info.hasEarlierKeys : nil
        created = timestamp(info.createdSeconds)
    }

    static func table(_ tenants: [TenantReport]) -> String {
        var table = TextTable(.left("NAME"), .left("ENCRYPTED"), .left("CREATED"))
        for tenant in tenants {
            let state = !tenant.unlocked ? "yes, locked" : tenant.earlierKeys == true ? "yes, partly with an earlier key" : "yes"
            table.append(tenant.name, tenant.encrypted ? state : "no", tenant.created)
        }
        return table.text()
    }
}
