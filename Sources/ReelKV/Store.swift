import KVCodec
import LMDB
import Locking

/// A persistent store of KV-cache pages: one folder, opened by as many processes and threads as like.
///
/// Readers never wait for writers. What `flush`, `finish` or any other change has acknowledged is on the disk, unless the store was opened
/// with ``Durability/relaxed``. A store must not be used in a child process after `fork()`: open it anew there.
public final class Store: Sendable {
    public enum Access: Hashable, Sendable {
        /// Nothing in the folder is changed, not even by a quarantine.
        case readOnly
        case readWrite
    }

    /// What a write of this process waits for.
    public enum Durability: Hashable, Sendable {
        /// The disk: what is acknowledged survives a crash of the machine.
        case durable
        /// The data, but not the last root of each file: half the flushes. A crash of the machine may lose the newest pages and names;
        /// what lies deeper is as safe as ever, and what is lost is a miss, never a wrong hit. A crash of the process loses nothing.
        case relaxed
    }

    /// What is fixed when a store is created.
    public struct Options: Hashable, Sendable {
        /// Tokens of a full page; a multiple of 32, at most 4096. Smaller pages share more finely and compress worse.
        public var pageTokens = 256
        /// Bytes at which a volume is sealed and the next one begun. Space comes back a volume at a time.
        public var volumeBytesMax = 256 << 20
        /// Whether commits to the index do not wait for the disk: for stores that are thrown away when this process ends.
        package var isScratch = false

        public init() {}
    }

    /// The store's folder.
    public let path: String
    public let access: Access
    /// Tokens of a full page.
    public var pageTokens: Int { core.pageTokens }

    /// The store's folder as an absolute path.
    var folder: String { core.folder }
    var index: Index { core.index }
    var volumes: VolumeSet { core.volumes }
    var leaseTable: LeaseTable { core.leases }
    let core: StoreCore
    private let hashers = Mutex<[HasherKey: ChainHasher]>([:])

    private struct HasherKey: Hashable {
        var tenant: UInt32
        var model: UInt32
    }

    /// Bytes that a page may take uncompressed. An image is a little larger at worst, and has its length in 32 bits.
    static let pageBytesMax = 1 << 31

    /// The tenant that is meant when none is named.
    public static let defaultTenant = "default"

    // MARK: - Creating and opening

    /// Creates a store in a folder that does not exist or is empty.
    ///
    /// - Throws: `StoreError` with the codes `storeExists`, `invalidArgument`, `readOnly`, `noSpace`, `inputOutput`.
    public static func create(at path: String, options: Options = Options()) throws -> Store {
        guard (32...4096).contains(options.pageTokens), options.pageTokens % 32 == 0 else {
            throw StoreError(.invalidArgument, "pages have 32...4096 tokens, a multiple of 32, not \(options.pageTokens)")
        }
        guard (1 << 20...1 << 40).contains(options.volumeBytesMax) else {
            throw StoreError(.invalidArgument, "volumes have 1 MiB...1 TiB, not \(options.volumeBytesMax) bytes")
        }
        if Platform.isDirectory(path) {
            guard (try? StoreCore.open(path, readOnly: true)) == nil else {
                throw StoreError(.storeExists, "\(path) holds a store already")
            }
            let volumes = try? Platform.list(path + "/" + VolumeSet.folderName)
            guard volumes?.contains(where: { VolumeSet.id(ofFile: $0) != nil }) != true else {
                throw StoreError(
                    .storeExists, "\(path) holds a store that has lost its index: `reelkv verify --repair` makes it anew")
            }
            // One that was interrupted is begun anew: what makes a store is its record, which comes last.
            let names = [VolumeSet.folderName, LeaseTable.folderName, Identity.fileName, Identity.unfinishedName]
            guard try Platform.list(path).allSatisfy({ names.contains($0) || Index.files.owns($0) }) else {
                throw StoreError(.storeExists, "the folder \(path) is not empty: name a new folder for the store")
            }
        }
        try StoreCore.refuseLinks(in: path)
        try Platform.makeDirectory(path)
        for folder in [VolumeSet.folderName, LeaseTable.folderName] { try Platform.makeDirectory(path + "/" + folder) }
        try StoreError.translating {
            let index = try Index(at: path + "/" + Index.fileName, readOnly: false, creating: true, isScratch: options.isScratch)
            let record = StoreRecord(
                magic: Index.magic, formatVersion: Index.formatVersion, minimumReaderVersion: Index.formatVersion,
                pageTokens: UInt32(options.pageTokens), storeId: UInt64.random(in: 1 ... .max),
                createdSeconds: Platform.unixSeconds(), volumeBytesMax: UInt64(options.volumeBytesMax), nextVolumeId: 1,
                nextModelId: 1, nextTenantId: 1, nextWriterId: 1)
            try index.environment.write { transaction in
                guard try !index.stores.contains(Index.storeKey, in: transaction) else {
                    throw StoreError(.storeExists, "\(path) holds a store already")
                }
                try index.putStoreRecord(record, in: transaction)
                try Identity(index, former: nil, in: transaction).save(in: path, isDurable: !options.isScratch)
            }
        }
        return try Store(opening: path, access: .readWrite, isScratch: options.isScratch)
    }

    /// Opens the store in a folder.
    ///
    /// - Parameter durability: what this process's writes wait for; other processes have their own. nil for as this process has the store
    ///   open already, else `durable`.
    /// - Throws: `StoreError` with the codes `notAStore`, `newerFormat`, `damaged`, `readOnly`, `noSpace`, `inputOutput`, and `inUse` for
    ///   writing where this process has the store open read-only or with another durability.
    public convenience init(opening path: String, access: Access = .readWrite, durability: Durability? = nil) throws {
        try self.init(opening: path, access: access, durability: durability, isScratch: false)
    }

    private init(opening path: String, access: Access, durability: Durability? = nil, isScratch: Bool) throws {
        core = try StoreError.translating {
            try StoreCore.open(path, readOnly: access == .readOnly, durability: durability, isScratch: isScratch)
        }
        self.path = path
        self.access = access
    }

    /// How often this process and those it comes from were forked since the first store was opened.
    package static var forkCount: Int { LMDB.forkCount() }

    /// What writes of this process wait for.
    public var durability: Durability { core.volumes.durability }

    /// Waits until everything that this process has written is on the disk. Where it is `durable`, that is so already.
    public func sync() throws {
        try checkWritable()
        try StoreError.translating {
            try volumes.sync()
            try index.environment.sync()
        }
    }

    // MARK: - Transactions

    func read<R>(_ body: (borrowing ReadTransaction) throws -> R) throws -> R {
        try StoreError.translating { try index.environment.read(body) }
    }

    func write<R>(_ body: (borrowing WriteTransaction) throws -> R) throws -> R {
        try checkWritable()
        return try StoreError.translating { try index.environment.write(body) }
    }

    /// Like `write`, and takes along the uses that this process has gathered.
    func writeWithUses<R>(_ body: (borrowing WriteTransaction) throws -> R) throws -> R {
        let batch = core.usageLog.take()
        do {
            return try write { transaction in
                if let batch { try index.record(batch, in: transaction) }
                return try body(transaction)
            }
        } catch {
            if let batch { core.usageLog.putBack(batch) }
            throw error
        }
    }

    /// Notes that a prefix was looked up, and writes down what was gathered when it is time to.
    func noteLookup(_ prefix: StoredPrefix, tokens: Int) {
        guard access == .readWrite else { return }
        index.evictionMemory.note(
            path: prefix.path, missing: (tokens - prefix.tokenCount + pageTokens - 1) / pageTokens)
        let tip = prefix.tokenCount > 0 ? prefix.tip : nil
        guard core.usageLog.note(tip: tip, tokens: tokens, matched: prefix.tokenCount) else { return }
        flushUses()
    }

    /// Notes that a sequence was used by its name.
    func noteUse(of prefix: StoredPrefix) {
        guard access == .readWrite else { return }
        index.evictionMemory.note(path: prefix.path, missing: 0)
        guard core.usageLog.note(tip: prefix.tip) else { return }
        flushUses()
    }

    /// Begins to write down the uses gathered so far. Best effort: they say what to evict, and nothing that anybody waits for.
    func flushUses() { core.usageWriter.begin(core.usageLog) }

    func checkWritable() throws {
        guard access == .readWrite else { throw StoreError(.readOnly, "the store \(path) was opened read-only") }
    }

    // MARK: - Chains

    /// The hasher of one model's chains for one tenant. Its root is where all their sequences start.
    ///
    /// - Throws: `StoreError.keyRequired` for an encrypted tenant whose key was not given.
    func hasher(tenant: StoredTenant, model: StoredModel) throws -> ChainHasher {
        guard let salt = index.salt(of: tenant) else { throw index.missingKey(of: tenant) }
        return hashers.withLock { hashers in
            let key = HasherKey(tenant: tenant.id, model: model.id)
            if let known = hashers[key] { return known }
            let hasher = ChainHasher(salt: salt, modelBytes: model.spec.chainBytes(), pageTokens: pageTokens)
            hashers[key] = hasher
            return hasher
        }
    }
}

extension StoreError {
    /// Runs `body`, and says in the store's terms what went wrong below it.
    static func translating<R>(_ body: () throws -> R) throws -> R {
        do {
            return try body()
        } catch let error as LMDBError {
            throw StoreError(error)
        }
    }

    init(_ error: LMDBError) {
        switch error.code {
        case .noSpace, .quotaExceeded: self.init(.noSpace, "\(error): free some space; nothing stored is lost")
        case .mapFull: self.init(.noSpace, "\(error)")
        case .readersFull:
            self.init(.inputOutput, "\(error): all places for readers are taken; end some reads, or try again later")
        case .readOnlyFileSystem: self.init(.readOnly, "\(error)")
        case .permissionDenied:
            self.init(.readOnly, "\(error): readers too must be allowed to write the lock files beside the store's files")
        case .invalid, .notFound: self.init(.notAStore, "\(error)")
        case .versionMismatch: self.init(.newerFormat, "\(error)")
        case .corrupted, .pageNotFound, .incompatible:
            self.init(.damaged, "\(error): `reelkv verify --repair` mends what can be")
        case .timedOut: self.init(.inUse, "\(error)")
        case .usedAfterFork: self.init(.forked, "\(error)")
        default: self.init(.inputOutput, "\(error)")
        }
    }
}

extension Store.Durability {
    var ofFiles: Environment.Configuration.Durability { self == .durable ? .durable : .relaxed }
}
