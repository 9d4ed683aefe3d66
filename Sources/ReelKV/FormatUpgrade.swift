import KVCodec
import LMDB

/// Brings the index of an older format version up to date, in one transaction: it is done, or nothing has changed.
///
/// Version 1 kept nodes by their hash; version 2 numbered them and kept the hash in the record, and where the page behind it is; version 3
/// gave every value a checksum. Volumes and page images are the same in all. Processes of the older version must have closed the
/// store: they would write values without checksums.
struct FormatUpgrade {
    private typealias Records = Database<RawBytes, RawBytes>

    private let environment: Environment
    private let stores: Database<UTF8String, RawBytes>
    private let plain: [String: Records]
    private let sealed: [String: Records]

    private static let nodes = "node"
    private static let names = "name"
    /// What version 1 had of a NodeRecord.
    private static let nodeBytesOfVersion1 = 128

    /// - Parameter databases: the names of all that the current version has.
    init(_ environment: Environment, databases: [String]) throws {
        self.environment = environment
        stores = try environment.database(named: "store", keys: UTF8String.self, values: RawBytes.self)
        func open(sealed: Bool) throws -> [String: Records] {
            try Dictionary(
                uniqueKeysWithValues: databases.map { name in
                    let database = try environment.database(
                        named: name, keys: RawBytes.self, values: RawBytes.self, creating: true, sealed: sealed)
                    return (name, database)
                })
        }
        plain = try open(sealed: false)
        sealed = try open(sealed: true)
    }

    func run() throws {
        try environment.write { transaction in
            // Another process may have been faster.
            guard var record = try Index.plainStoreRecord(in: stores, transaction), record.formatVersion < Index.formatVersion
            else { return }
            if record.formatVersion < 2 { try numberNodes(in: transaction) }
            for (name, database) in plain {
                guard let target = sealed[name] else { continue }
                for key in try keys(of: database, in: transaction) {
                    guard let value = try database.get(key, in: transaction) else { continue }
                    try target.put(key, value, in: transaction)
                }
            }
            record.formatVersion = Index.formatVersion
            record.minimumReaderVersion = Index.formatVersion
            var bytes: [UInt8] = []
            bytes.append(record)
            try sealed["store"]?.put(Array(Index.storeKey.utf8), bytes, in: transaction)
        }
    }

    private func keys(of database: Records, in transaction: borrowing WriteTransaction) throws -> [[UInt8]] {
        var keys: [[UInt8]] = []
        try database.forEachRaw(in: .all, in: transaction) { key, _ in
            keys.append(Array(key))
            return .continue
        }
        return keys
    }

    /// Version 1 to 2.
    private func numberNodes(in transaction: borrowing WriteTransaction) throws {
        guard let nodes = plain[Self.nodes], let names = plain[Self.names] else { return }
        var records: [(hash: [UInt8], bytes: [UInt8])] = []
        try nodes.forEach(in: .all, in: transaction) { hash, bytes in
            records.append((hash, bytes))
            return .continue
        }
        try nodes.clear(in: transaction)
        let added = NodeRecord.byteCount - Self.nodeBytesOfVersion1 - Digest.byteCount
        for (index, record) in records.enumerated() {
            guard record.hash.count == Digest.byteCount, record.bytes.count >= Self.nodeBytesOfVersion1 else {
                throw StoreError(.damaged, "\(environment.path) has format version 1, and a damaged node: make a new store")
            }
            let number = withUnsafeBytes(of: UInt64(index + 1).bigEndian) { Array($0) }
            let bytes =
                record.bytes[..<Self.nodeBytesOfVersion1] + record.hash + Array(repeating: 0, count: added)
                + record.bytes[Self.nodeBytesOfVersion1...]
            try nodes.append(number, Array(bytes), in: transaction)
            try names.put(record.hash, number, in: transaction)
        }
    }
}
