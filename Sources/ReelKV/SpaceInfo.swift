import LMDB

/// What a store takes now, and who has stored it.
public struct SpaceInfo: Hashable, Sendable {
    public struct Tenant: Hashable, Sendable {
        public var name: String
        /// Bytes of page images that it may have stored; nil for no bound of its own.
        public var quotaBytes: Int?
        /// Bytes of its page images, and how many they are.
        public var liveBytes: Int
        public var livePages: Int
    }

    /// Bytes that the store's files take on the file system, all together: what its quota bounds.
    public var occupiedBytes: Int
    /// Bytes that the file system has free.
    public var freeBytes: Int
    /// By name.
    public var tenants: [Tenant]

    /// Bytes of all page images that are not deleted.
    public var liveBytes: Int { tenants.reduce(0) { $0 + $1.liveBytes } }
}

extension Store {
    /// Tells what the store takes, from what the index counts: no page and no node is looked at.
    public func space() throws -> SpaceInfo {
        let tenants = try read { transaction in
            try index.allTenants(in: transaction).map { tenant in
                let account = try index.account(of: tenant.id, in: transaction)
                let quota = try index.tenantRecord(named: tenant.name, in: transaction)?.quotaBytes ?? 0
                return SpaceInfo.Tenant(
                    name: tenant.name, quotaBytes: quota == 0 ? nil : Int(clamping: quota),
                    liveBytes: Int(clamping: account.liveBytes), livePages: Int(clamping: account.livePages))
            }
        }
        return SpaceInfo(
            occupiedBytes: try Platform.occupiedBytes(folder), freeBytes: try Platform.freeBytes(folder),
            tenants: tenants.sorted { $0.name < $1.name })
    }
}
