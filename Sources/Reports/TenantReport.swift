package import ReelKV

/// A tenant as listings show it.
package struct TenantReport: Encodable {
    package var name: String
    package var encrypted: Bool
    /// Whether it can be read: it is not encrypted, or its key was given.
    package var unlocked: Bool
    /// Which of its keys is in effect, counted from 1; missing where it is not encrypted.
    package var keyGeneration: Int?
    /// Whether some pages are still sealed with an earlier key; missing while it is locked.
    package var earlierKeys: Bool?
    package var livePages: Int
    package var liveBytes: Int
    package var created: String

    enum CodingKeys: String, CodingKey {
        case name, encrypted, unlocked, created
        case keyGeneration = "key_generation"
        case earlierKeys = "earlier_keys"
        case livePages = "live_pages"
        case liveBytes = "live_bytes"
    }

    package init(_ info: TenantInfo) {
        name = info.name
        encrypted = info.isEncrypted
        unlocked = info.isUnlocked
        keyGeneration = info.isEncrypted ? info.keyGeneration : nil
        earlierKeys = info.isUnlocked ? info.hasEarlierKeys : nil
        livePages = info.livePages
        liveBytes = info.liveBytes
        created = timestamp(info.createdSeconds)
    }
}
