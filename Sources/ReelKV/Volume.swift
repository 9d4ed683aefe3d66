import LMDB

/// One file of page images, open.
///
/// Images are put under rising ids and never changed or deleted, so that a reader needs no lock on a sealed volume, and
/// LMDB's list of free pages never holds a large one.
final class Volume: Sendable {
    enum Mode {
        /// This process appends to it.
        case writer
        /// Another process may append to it: reading takes a reader slot.
        case shared
        /// Nobody writes it any more: reading takes no lock at all.
        case sealed
    }

    let id: UInt64
    private let environment: Environment
    private let pages: Database<BigEndianUInt64, RawBytes>

    /// Page id 0 holds the volume's header.
    private static let headerPage: UInt64 = 0
    static let magic: UInt64 = 0x0A4C_4F56_564B_5289
    static let formatVersion: UInt16 = 1

    /// Opens a volume and checks that it is the one the index means. A writer sets up a file that is empty.
    init(
        id: UInt64, path: String, storeID: UInt64, bytesMax: Int, mode: Mode, durability: Store.Durability = .durable
    ) throws {
        self.id = id
        var configuration = Environment.Configuration()
        configuration.mapSize = bytesMax
        configuration.growsMap = false
        // Who reads knows what comes next, and asks for that: a layer of one page, then of the next, lie far apart.
        configuration.readAhead = false
        switch mode {
        case .writer:
            configuration.durability = durability.ofFiles
        case .shared:
            configuration.isReadOnly = true
        case .sealed:
            configuration.isReadOnly = true
            configuration.usesLocks = false
        }
        try Platform.refuseLink(path)
        environment = try Environment.open(at: path, configuration: configuration)
        pages = try environment.database(named: nil, keys: BigEndianUInt64.self, values: RawBytes.self, creating: false)
        if mode == .writer { try putHeader(storeID: storeID) }
        try checkHeader(storeID: storeID)
    }

    private func putHeader(storeID: UInt64) throws {
        guard try environment.read({ try pages.count(in: $0) }) == 0 else { return }
        var header: [UInt8] = []
        header.append(VolumeHeader(magic: Self.magic, formatVersion: Self.formatVersion, storeId: storeID, volumeId: id))
        try environment.write { try pages.put(Self.headerPage, header, in: $0) }
    }

    private func checkHeader(storeID: UInt64) throws {
        let header = try environment.read { transaction in
            try pages.withValue(Self.headerPage, in: transaction) { VolumeHeader(at: 0, of: $0) }
        }
        guard let header = header ?? nil, header.magic == Self.magic else {
            throw StoreError(.damaged, "\(environment.path) is not a ReelKV volume")
        }
        guard header.formatVersion <= Self.formatVersion else {
            throw StoreError(.newerFormat, "\(environment.path) was written by a newer ReelKV: upgrade")
        }
        guard header.storeId == storeID, header.volumeId == id else {
            throw StoreError(
                .damaged, "\(environment.path) belongs to another store or is another volume: put the right file back")
        }
    }

    /// Calls `body` with a page image; nil when the volume does not hold the page. The bytes are valid only inside `body`.
    ///
    /// - Parameter readsAhead: whether all of the image is wanted: then it is in memory when `body` runs. Else `body` brings in what it
    ///   reads (`Environment.bringIn`), or a disk that fails ends the process.
    func withImage<R>(
        _ page: UInt64, readsAhead: Bool = true, _ body: (UnsafeRawBufferPointer) throws -> R
    ) throws -> R? {
        guard page != Self.headerPage else { return nil }
        return try environment.read { transaction in
            try pages.withValue(page, in: transaction) { bytes in
                if readsAhead {
                    Environment.adviseWillNeed(bytes)
                    try Environment.bringIn(bytes)
                }
                return try body(bytes)
            }
        }
    }

    /// Has the disk begin to read the beginning of a page image, up to its sections.
    func readAheadOfPrologue(_ page: UInt64) throws {
        _ = try withImage(page, readsAhead: false) { bytes in
            Environment.adviseWillNeed(UnsafeRawBufferPointer(rebasing: bytes.prefix(Self.prologueBytes)))
        }
    }

    /// About as long as prologues are: 28 layers and 256 tokens take 6 KB.
    static let prologueBytes = 16 << 10

    /// Calls `body` with every page's id and its image's length, in rising order. Reads no image.
    func forEachPage(_ body: (_ page: UInt64, _ byteCount: Int) throws -> Void) throws {
        try environment.read { transaction in
            try pages.forEachRaw(in: .after(Self.headerPage), in: transaction) { key, value in
                try body(try BigEndianUInt64.decode(key), value.count)
                return .continue
            }
        }
    }

    /// Calls `visit` with the images behind a page, in rising order, until it returns false, and then `body`: the images' bytes are valid
    /// until that returns.
    func readImages<R>(
        after page: UInt64, _ visit: (UInt64, UnsafeRawBufferPointer) throws -> Bool, then body: () throws -> R
    ) throws -> R {
        try environment.read { transaction in
            try pages.forEachRaw(in: .after(max(page, Self.headerPage)), in: transaction) { key, value in
                try Environment.bringIn(value)
                return try visit(UInt64(bigEndian: key.loadUnaligned(as: UInt64.self)), value) ? .continue : .stop
            }
            return try body()
        }
    }

    /// Appends the images. When this returns they are on the disk, but for a `relaxed` writer, whose last append may be undone until
    /// the next one or `sync`.
    ///
    /// - Returns: their page ids, in order; nil when the volume has no room for all of them, and then holds none of them.
    func append(_ images: [some PageBytes]) throws -> [UInt64]? {
        do {
            return try environment.write { transaction in
                var next = try lastPage(in: transaction) + 1
                return try images.map { image in
                    defer { next += 1 }
                    try pages.reserve(next, byteCount: image.count, in: transaction) { image.copy(to: $0) }
                    return next
                }
            }
        } catch let error as LMDBError where error.code == .mapFull {
            return nil
        }
    }

    /// Brings everything appended to the disk.
    func sync() throws { try environment.sync() }

    private func lastPage(in transaction: borrowing some Transaction & ~Copyable) throws -> UInt64 {
        let last = try pages.withCursor(in: transaction) { cursor in
            try cursor.moveToLast() ? try BigEndianUInt64.decode(cursor.rawKey) : Self.headerPage
        }
        guard last < UInt64(UInt32.max) else {
            throw StoreError(.damaged, "\(environment.path) is damaged: it numbers a page \(last)")
        }
        return last
    }

    /// Whether it holds no page image.
    var isEmpty: Bool {
        get throws { try environment.read { try pages.count(in: $0) } <= 1 }
    }
}

/// A page image in memory, ready to be appended.
protocol PageBytes {
    var count: Int { get }
    func copy(to destination: UnsafeMutableRawBufferPointer)
}

extension [UInt8]: PageBytes {
    func copy(to destination: UnsafeMutableRawBufferPointer) {
        withUnsafeBytes { destination.copyMemory(from: $0) }
    }
}
