import LMDB
import Locking

/// A store's open files, shared by every `Store` of the process on the same folder: a file must not be open twice in one process.
final class StoreCore: Sendable {
    let folder: String
    let index: Index
    let volumes: VolumeSet
    let leases: LeaseTable
    let pageTokens: Int
    let isReadOnly: Bool
    let usageLog = UsageLog()
    let usageWriter: UsageWriter
    let demotionScan = Mutex(DemotionScan())
    /// When pages unused for too long were last looked for, by a clock that is never set.
    let expiryLooked = Mutex<Int64>(.min)
    let compactionSteps = Mutex(CompactionSteps())

    private struct Entry {
        weak var core: StoreCore?
        /// What a forked child finds here are its parent's files.
        let process = Platform.processID
    }

    /// By the store's folder: the index's file can change while the store is open.
    private static let registry = Mutex<[Platform.FileIdentity: Entry]>([:])

    private init(path: String, readOnly: Bool, durability: Store.Durability, isScratch: Bool) throws {
        Sodium.prepare()
        let index = try Index(
            at: path + "/" + Index.fileName, readOnly: readOnly, creating: false, durability: durability, isScratch: isScratch)
        let record = try index.environment.read { try index.storeRecord(in: $0) }
        if index.isUpgraded {
            // Older versions have none.
            try index.environment.write { try Identity(index, former: nil, in: $0).save(in: path, isDurable: !isScratch) }
        }
        // Readers that died would keep pages of the index from being used again.
        if !readOnly { _ = try index.environment.clearStaleReaders() }
        if !readOnly { try index.environment.read { try index.loadMemory(in: $0) } }
        self.index = index
        usageWriter = UsageWriter(index)
        folder = path
        volumes = VolumeSet(
            folder: path + "/" + VolumeSet.folderName, index: index, record: record, isReadOnly: readOnly,
            durability: durability)
        leases = LeaseTable(folder: path + "/" + LeaseTable.folderName)
        pageTokens = Int(record.pageTokens)
        isReadOnly = readOnly
    }

    deinit {
        // A forked child has its parent's uses; LMDB refuses its write.
        guard !isReadOnly else { return }
        usageWriter.end(usageLog.take())
    }

    /// The open files of the store in a folder; opens them when nobody in this process has yet.
    ///
    /// - Throws: `StoreError.inUse` for writing to a store that this process has open read-only or with another durability.
    static func open(
        _ path: String, readOnly: Bool, durability: Store.Durability? = nil, isScratch: Bool = false
    ) throws -> StoreCore {
        // Absolute, because volumes are opened long after, and the process may have changed its folder by then.
        guard let path = Platform.absolute(path), let identity = Platform.FileIdentity(path: path), hasIndex(path) else {
            if Platform.exists(path + "/" + Identity.fileName) {
                throw StoreError(
                    .damaged, "the store \(path) has lost its index: `reelkv verify --repair` makes it anew from the volumes")
            }
            throw StoreError(.notAStore, "\(path) holds no ReelKV store: create one with `reelkv init --store \(path)`")
        }
        try refuseLinks(in: path)
        return try registry.withLock { registry in
            registry = registry.filter { $0.value.core != nil && $0.value.process == Platform.processID }
            if let core = registry[identity]?.core {
                guard readOnly || !core.isReadOnly else {
                    throw StoreError(.inUse, "the store \(path) is open read-only in this process: close that first")
                }
                guard readOnly || durability ?? core.volumes.durability == core.volumes.durability else {
                    let known = core.volumes.durability
                    throw StoreError(.inUse, "the store \(path) is open as \(known) in this process: close that first")
                }
                return core
            }
            let core = try StoreCore(path: path, readOnly: readOnly, durability: durability ?? .durable, isScratch: isScratch)
            registry[identity] = Entry(core: core)
            return core
        }
    }

    /// - Throws: `StoreError.inputOutput` where a symbolic link stands for one of the store's folders.
    static func refuseLinks(in folder: String) throws {
        for name in [VolumeSet.folderName, LeaseTable.folderName] { try Platform.refuseLink(folder + "/" + name) }
    }

    private static func hasIndex(_ folder: String) -> Bool {
        guard let names = try? Platform.list(folder) else { return false }
        return Index.files.newest(among: names) != nil
    }
}
