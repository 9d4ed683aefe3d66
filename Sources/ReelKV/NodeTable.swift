import KVCodec
import LMDB

/// The nodes' records, in the order in which they were made, and where the record of each chain hash is.
///
/// Hashes are random, so pages of one sequence would lie anywhere. By number they lie one after the other: a look-up goes along them
/// with one cursor, and new records are written side by side.
///
/// Knows the place of a record and that it begins with a `NodeRecord`; not what nodes are to each other.
struct NodeTable: Sendable {
    /// Key: chain hash. Value: the record's number, big-endian.
    let numbers: Database<DigestKey, RawBytes>
    let records: Database<BigEndianUInt64, RawBytes>

    // MARK: - Reading

    func number(of hash: Digest, in transaction: borrowing some Transaction & ~Copyable) throws -> UInt64? {
        try numbers.withValue(hash, in: transaction) { bytes in
            do { return try BigEndianUInt64.decode(bytes) } catch {
                throw StoreError(.damaged, "the index has no number for node \(hash.hex.prefix(16)); run `reelkv verify`")
            }
        }
    }

    /// The hash of the node whose record has a number.
    func hash(of number: UInt64, in transaction: borrowing some Transaction & ~Copyable) throws -> Digest? {
        try records.withValue(number, in: transaction) { Self.hash(in: $0) } ?? nil
    }

    func contains(_ hash: Digest, in transaction: borrowing some Transaction & ~Copyable) throws -> Bool {
        try numbers.contains(hash, in: transaction)
    }

    func count(in transaction: borrowing some Transaction & ~Copyable) throws -> Int { try records.count(in: transaction) }

    /// Lends the bytes of a node; nil, without running `body`, if there is none of that hash.
    func withValue<R>(
        _ hash: Digest, in transaction: borrowing some Transaction & ~Copyable, _ body: (UnsafeRawBufferPointer) throws -> R
    ) throws -> R? {
        guard let number = try number(of: hash, in: transaction) else { return nil }
        return try records.withValue(number, in: transaction) { bytes in
            guard Self.hash(in: bytes) == hash else {
                throw StoreError(.damaged, "node \(hash.hex.prefix(16)) is not what its hash says; run `reelkv verify`")
            }
            return try body(bytes)
        }
    }

    /// Lends the bytes of every node, with those of its hash, which are fewer than 32 in a record that is too short for one.
    func forEach(
        in transaction: borrowing some Transaction & ~Copyable,
        _ body: (_ hash: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) throws -> IterationStep
    ) throws {
        try records.forEachRaw(in: .all, in: transaction) { _, bytes in
            let start = min(bytes.count, NodeRecord.hashOffset)
            return try body(UnsafeRawBufferPointer(rebasing: bytes[start...].prefix(Digest.byteCount)), bytes)
        }
    }

    private static func hash(in bytes: UnsafeRawBufferPointer) -> Digest? {
        guard bytes.count >= NodeRecord.byteCount else { return nil }
        return bytes.loadLittleEndian(at: NodeRecord.hashOffset, as: Digest.self)
    }

    // MARK: - Writing

    /// Stores a node's bytes, which hold `hash`, in place of what was stored of it.
    ///
    /// - Returns: the record's number.
    @discardableResult
    func put(_ hash: Digest, _ bytes: [UInt8], in transaction: borrowing WriteTransaction) throws -> UInt64 {
        if let number = try number(of: hash, in: transaction) {
            try records.put(number, bytes, in: transaction)
            return number
        }
        let number = try nextNumber(in: transaction)
        try numbers.put(hash, withUnsafeBytes(of: number.bigEndian) { Array($0) }, in: transaction)
        try records.append(number, bytes, in: transaction)
        return number
    }

    func delete(_ hash: Digest, in transaction: borrowing WriteTransaction) throws {
        guard let number = try number(of: hash, in: transaction) else { return }
        _ = try numbers.delete(hash, in: transaction)
        _ = try records.delete(number, in: transaction)
    }

    /// Numbers begin at 1: 0 stands for no record.
    private func nextNumber(in transaction: borrowing WriteTransaction) throws -> UInt64 {
        guard let last = try records.lastKey(in: transaction) else { return 1 }
        guard last < .max else { throw StoreError(.damaged, "the index numbers its nodes wrong; run `reelkv verify`") }
        return last + 1
    }
}

extension NodeRecord {
    /// Where the record holds the node's hash.
    fileprivate static let hashOffset = 128
}
