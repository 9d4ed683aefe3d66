import KVCodec
import LMDB

/// The index: everything about a store but the page images. One LMDB file, which a smaller one can succeed; each method of a write closure changes the
/// records of one noun and keeps what the others say of it true.
///
/// Knows the records' form and how they refer to each other. Does not know volumes as files, page images, or models' tensors.
///
/// Invariants, checked by `Store.verify`:
/// - a node's parent is stored as long as the node is (or is the chain's root);
/// - `children` and `heads` count exactly the nodes and heads (finished or being written) that refer to a node;
/// - `pins` counts those heads of a node that are pinned or being written;
/// - a node with neither children nor pins has a key in `leaf`, no other has: those may be evicted, leaf first;
/// - every encoding lies in a volume that has a record, and the records' live bytes and pages are the sums over encodings.
final class Index: Sendable {
    let environment: Environment
    /// The encrypted tenants' keys that this process has been given.
    let keyRing: KeyRing
    let stores: Database<UTF8String, RawBytes>
    let models: Database<UTF8String, RawBytes>
    let tenants: Database<UTF8String, RawBytes>
    let nodes: NodeTable
    /// Key: base ‖ order key of the node's tokens ‖ 8 bytes of its hash. Value: the hash.
    let children: Database<RawBytes, RawBytes>
    /// Finished heads. Key: tenant id ‖ name.
    let videos: Database<RawBytes, RawBytes>
    let sessions: Database<RawBytes, RawBytes>
    /// Heads being written. Key: writer id ‖ tenant id ‖ name.
    let building: Database<RawBytes, RawBytes>
    /// Engine state after the last token of a node.
    let states: Database<DigestKey, RawBytes>
    let volumes: Database<BigEndianUInt64, RawBytes>
    /// What refers to a node as its tip. Key: hash ‖ kind ‖ tenant id ‖ name. Value: empty.
    let tips: Database<RawBytes, RawBytes>
    /// How nodes were used.
    let usages: Database<DigestKey, RawBytes>
    /// Nodes that may be evicted now, in the order of eviction. Key: `LeafKey`. Value: Unix time of the last use.
    let leaves: Database<RawBytes, RawBytes>
    /// What tenants have stored. Key: tenant id.
    let accounts: Database<RawBytes, RawBytes>
    /// Whether opening it has brought it up to date.
    let isUpgraded: Bool
    /// What the order of eviction goes by beside the records; of this process.
    let evictionMemory = EvictionMemory()

    /// The first file's name. Its successors are numbered; see `files`.
    static let fileName = "index.mdb"
    /// The names of the index's files.
    static let files = FileGenerations(first: fileName)
    static let storeKey = "store"
    static let magic: UInt64 = 0x0A56_4B4C_4545_5289
    /// 2 numbered the nodes, 3 gave every value a checksum and the store its identity file. A store without encrypted tenants has this one.
    static let formatVersion: UInt16 = 3
    /// The version of stores with encrypted tenants, and the newest that is read.
    static let encryptedVersion: UInt16 = 4
    /// The first version whose values have checksums; also the oldest that is read as it is.
    private static let sealedVersion: UInt16 = 3
    private static let readableVersion: UInt16 = 2
    /// Initial size of the memory map; it doubles when full.
    private static let mapBytes = 64 << 20
    private static let mapBytesMax = 1 << 40

    /// Opens the index file; creates its databases when `creating`.
    ///
    /// - Parameter isScratch: whether commits do not wait for the disk, because the store is thrown away.
    /// - Parameter isAlone: whether no other file can succeed it, because it is one that is being made.
    init(
        at path: String, readOnly: Bool, creating: Bool, durability: Store.Durability = .durable, isScratch: Bool = false,
        isAlone: Bool = false, keyRing: KeyRing = KeyRing()
    ) throws {
        self.keyRing = keyRing
        var configuration = Environment.Configuration()
        configuration.mapSize = Self.mapBytes
        configuration.maxMapSize = Self.mapBytesMax
        configuration.maxDatabases = 24
        configuration.isReadOnly = readOnly
        configuration.isScratch = isScratch
        configuration.durability = durability.ofFiles
        configuration.allowsSuccessors = !isAlone
        environment = try Environment.open(at: path, configuration: configuration)
        let (version, isUpgraded) =
            creating ? (Self.formatVersion, false) : try Self.upgradedVersion(of: environment, readOnly: readOnly)
        self.isUpgraded = isUpgraded
        let (opened, sealed) = (environment, version >= Self.sealedVersion)
        func database<Key: KeyCodec>(_ name: String, _ keys: Key.Type) throws -> Database<Key, RawBytes> {
            try opened.database(named: name, keys: keys, values: RawBytes.self, creating: creating, sealed: sealed)
        }
        stores = try database("store", UTF8String.self)
        models = try database("model", UTF8String.self)
        tenants = try database("tenant", UTF8String.self)
        nodes = NodeTable(numbers: try database("name", DigestKey.self), records: try database("node", BigEndianUInt64.self))
        children = try database("child", RawBytes.self)
        videos = try database("video", RawBytes.self)
        sessions = try database("session", RawBytes.self)
        building = try database("building", RawBytes.self)
        states = try database("state", DigestKey.self)
        volumes = try database("volume", BigEndianUInt64.self)
        tips = try database("tip", RawBytes.self)
        usages = try database("usage", DigestKey.self)
        leaves = try database("leaf", RawBytes.self)
        accounts = try database("account", RawBytes.self)
    }

    private static let databases = [
        "store", "model", "tenant", "name", "node", "child", "video", "session", "building", "state", "volume", "tip", "usage",
        "leaf", "account",
    ]

    // MARK: - Format versions

    /// The version that an index has, brought up to date where it may be written.
    private static func upgradedVersion(
        of environment: Environment, readOnly: Bool
    ) throws -> (version: UInt16, isUpgraded: Bool) {
        let stores = try environment.database(named: "store", keys: UTF8String.self, values: RawBytes.self)
        let found = try environment.read { try plainStoreRecord(in: stores, $0) }
        // What is no record is refused by who reads it next.
        guard let record = found, record.formatVersion != formatVersion else { return (formatVersion, false) }
        guard record.minimumReaderVersion <= encryptedVersion else {
            throw StoreError(
                .newerFormat,
                "\(environment.path) has format version \(record.formatVersion), this ReelKV reads up to \(encryptedVersion): upgrade ReelKV"
            )
        }
        guard record.formatVersion < formatVersion else { return (record.formatVersion, false) }
        guard readOnly else {
            try FormatUpgrade(environment, databases: databases).run()
            return (formatVersion, true)
        }
        guard record.formatVersion >= readableVersion else {
            throw StoreError(
                .notAStore,
                "\(environment.path) has format version \(record.formatVersion): open it for writing once, as `reelkv verify` does, which brings it up to date"
            )
        }
        return (record.formatVersion, false)
    }

    /// The store's own record, whether it has a checksum or not; nil where there is none.
    static func plainStoreRecord(
        in stores: Database<UTF8String, RawBytes>, _ transaction: borrowing some Transaction & ~Copyable
    ) throws -> StoreRecord? {
        let found = try stores.withValue(storeKey, in: transaction) { StoreRecord(at: 0, of: $0) } ?? nil
        return found.flatMap { $0.magic == magic ? $0 : nil }
    }

    /// Gives free pages back to the disk when they are at least `bytes`, while others read and write. Copies the whole index.
    ///
    /// - Returns: the index file's size in bytes, before and after.
    func shrink(ifGaining bytes: Int = 1) throws -> (before: Int, after: Int) {
        guard try environment.freeBytes() >= bytes else {
            let size = Platform.fileSize(environment.filePath) ?? 0
            return (size, size)
        }
        return try environment.shrink()
    }

    // MARK: - The store's own record

    func storeRecord(in transaction: borrowing some Transaction & ~Copyable) throws -> StoreRecord {
        let found = try stores.withValue(Self.storeKey, in: transaction) { bytes in
            StoreRecord(at: 0, of: bytes)
        }
        guard let record = found ?? nil, record.magic == Self.magic else {
            throw StoreError(.notAStore, "\(environment.path) is not a ReelKV index")
        }
        guard record.pageTokens > 0, record.pageTokens % 32 == 0, record.pageTokens <= TokenSequence.pageTokensMax,
            record.volumeBytesMax > 0
        else {
            throw StoreError(.damaged, "the store's record is damaged; run `reelkv verify`")
        }
        return record
    }

    func putStoreRecord(_ record: StoreRecord, in transaction: borrowing WriteTransaction) throws {
        var bytes: [UInt8] = []
        bytes.append(record)
        try stores.put(Self.storeKey, bytes, in: transaction)
    }

    /// Takes the next value of a counter in the store's record.
    func takeID<ID: FixedWidthInteger>(
        _ counter: WritableKeyPath<StoreRecord, ID>, in transaction: borrowing WriteTransaction
    ) throws -> ID {
        var record = try storeRecord(in: transaction)
        let id = record[keyPath: counter]
        guard id < .max else { throw StoreError(.damaged, "the store's record is damaged; run `reelkv verify`") }
        record[keyPath: counter] = id + 1
        try putStoreRecord(record, in: transaction)
        return id
    }
}
