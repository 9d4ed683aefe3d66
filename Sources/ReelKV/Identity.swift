import KVCodec
import LMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The copy of what no page image tells: tenants' salts and models, in the file `identity` beside the index (schema/FORMAT.md,
/// "Identity"). It is of use only when the index is lost or damaged.
struct Identity: Hashable {
    struct Model: Hashable {
        var name: String
        /// As the index has it.
        var bytes: [UInt8]

        func stored() throws -> StoredModel { try bytes.withUnsafeBytes { try StoredModel(name: name, bytes: $0) } }
    }

    var store: StoreRecord
    var settings: SettingsRecord
    var tenants: [StoredTenant]
    var models: [Model]

    static let fileName = "identity"
    /// What it goes by until it is complete.
    static let unfinishedName = fileName + "-new"
    private static let magic: UInt64 = 0x0A4E_4449_564B_5289
    private static let formatVersion: UInt16 = 1
    private static let byteCountMax = 1 << 30

    // MARK: - Reading

    /// What the file in a store's folder says.
    ///
    /// - Throws: `StoreError.damaged` when it is missing or not what it should be.
    init(in folder: String) throws {
        let path = folder + "/" + Self.fileName
        guard let bytes = try Platform.readFile(path, byteCountMax: Self.byteCountMax) else {
            throw StoreError(.damaged, "\(path) is missing")
        }
        do { try self.init(bytes) } catch let error as StoreError where error.code == .damaged {
            throw StoreError(.damaged, "\(path) is damaged")
        }
    }

    init(_ bytes: [UInt8]) throws {
        self = try bytes.withUnsafeBytes { bytes in
            var reader = Reader(bytes: bytes)
            let header: IdentityHeader = try reader.record()
            guard header.magic == Self.magic, header.bodyBytes == UInt64(bytes.count - IdentityHeader.byteCount),
                try Checksum.of(bytes, 0..<56, then: IdentityHeader.byteCount..<bytes.count) == header.checksum
            else { throw Reader.damaged }
            guard header.formatVersion <= Self.formatVersion else {
                throw StoreError(.newerFormat, "the file '\(Self.fileName)' was written by a newer ReelKV: upgrade")
            }
            let (store, settings) = (try reader.record() as StoreRecord, try reader.record() as SettingsRecord)
            let tenants = try (0..<header.tenantCount).map { _ in
                let name = try reader.text()
                let record: TenantRecord = try reader.record()
                return StoredTenant(name: name, record: record, secret: Array(try reader.take(Int(record.secretBytes))))
            }
            let models = try (0..<header.modelCount).map { _ in
                let name = try reader.text()
                return Model(name: name, bytes: Array(try reader.take(try reader.length())))
            }
            guard store.magic == Index.magic, reader.isAtEnd else { throw Reader.damaged }
            return Identity(store: store, settings: settings, tenants: tenants, models: models)
        }
    }

    private init(store: StoreRecord, settings: SettingsRecord, tenants: [StoredTenant], models: [Model]) {
        self.store = store
        self.settings = settings
        self.tenants = tenants
        self.models = models
    }

    private struct Reader {
        var bytes: UnsafeRawBufferPointer
        var offset = 0

        static let damaged = StoreError(.damaged, "the file 'identity' is damaged")

        var isAtEnd: Bool { offset == bytes.count }

        mutating func take(_ count: Int) throws -> UnsafeRawBufferPointer {
            guard count <= bytes.count - offset else { throw Self.damaged }
            defer { offset += count }
            return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
        }

        mutating func record<Record: FixedLayoutRecord>() throws -> Record {
            guard let record = Record(at: 0, of: try take(Record.byteCount)) else { throw Self.damaged }
            return record
        }

        mutating func length() throws -> Int { Int(try take(4).loadLittleEndian(at: 0, as: UInt32.self)) }

        mutating func text() throws -> String { String(decoding: try take(try length()), as: UTF8.self) }
    }

    // MARK: - Writing

    /// What the index says. Of a record that is damaged there, what `former` has is kept.
    init(
        _ index: Index, former: Identity?, in transaction: borrowing some Transaction & ~Copyable
    ) throws {
        store = try index.storeRecord(in: transaction)
        settings = (try? index.settings(in: transaction)) ?? former?.settings ?? .none
        var tenants: [StoredTenant] = []
        try index.tenants.forEachRaw(
            in: .all, in: transaction,
            onDamage: { key in
                let name = String(decoding: key, as: UTF8.self)
                if let known = former?.tenants.first(where: { $0.name == name }) { tenants.append(known) }
            }
        ) { key, value in
            let name = String(decoding: key, as: UTF8.self)
            let known = former?.tenants.first { $0.name == name }
            if let tenant = (try? StoredTenant(name: name, bytes: value)) ?? known {
                tenants.append(tenant)
            }
            return .continue
        }
        var models: [Model] = []
        try index.models.forEachRaw(
            in: .all, in: transaction,
            onDamage: { key in
                let name = String(decoding: key, as: UTF8.self)
                if let known = former?.models.first(where: { $0.name == name }) { models.append(known) }
            }
        ) { key, value in
            let model = Model(name: String(decoding: key, as: UTF8.self), bytes: Array(value))
            let known = former?.models.first { $0.name == model.name }
            if let model = (try? model.stored()) == nil ? known : model { models.append(model) }
            return .continue
        }
        self.tenants = tenants
        self.models = models
    }

    func encoded() -> [UInt8] {
        var body: [UInt8] = []
        body.append(store)
        body.append(settings)
        for tenant in tenants {
            body.appendText(tenant.name)
            body += tenant.encoded()
        }
        for model in models {
            body.appendText(model.name)
            body.appendLittleEndian(UInt32(model.bytes.count))
            body += model.bytes
        }
        var header = IdentityHeader(
            magic: Self.magic, formatVersion: Self.formatVersion, tenantCount: UInt32(tenants.count),
            modelCount: UInt32(models.count), bodyBytes: UInt64(body.count), checksum: 0)
        var bytes: [UInt8] = []
        bytes.append(header)
        header.checksum = (bytes.prefix(56) + body).withUnsafeBytes { Checksum.of($0) }
        bytes = []
        bytes.append(header)
        return bytes + body
    }

    /// Puts it in place of what the folder has. The caller holds the index's write lock.
    ///
    /// - Parameter isDurable: whether to wait for the disk.
    func save(in folder: String, isDurable: Bool = true) throws {
        try Platform.writeFile(
            folder + "/" + Self.fileName, encoded(), unfinished: folder + "/" + Self.unfinishedName, isDurable: isDurable)
    }
}

extension [UInt8] {
    fileprivate mutating func appendText(_ text: String) {
        appendLittleEndian(UInt32(text.utf8.count))
        append(contentsOf: text.utf8)
    }
}

extension Store {
    /// Repeats in `identity` what the index has of tenants, models and settings. To be called before a transaction that adds to them is
    /// committed, and after one that removes.
    func saveIdentity(in transaction: borrowing WriteTransaction) throws {
        // What was removed before, by whatever process, may not be on the disk yet (`relaxed`): a crash of the machine would bring it back to
        // an index whose copy no longer has it.
        if !index.environment.configuration.isScratch { try StoreError.translating { try index.environment.sync() } }
        let identity = try Identity(index, former: try? Identity(in: folder), in: transaction)
        try identity.save(in: folder, isDurable: !index.environment.configuration.isScratch)
    }
}
