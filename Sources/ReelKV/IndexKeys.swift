import KVCodec
import LMDB

/// A digest as an LMDB key: its 32 bytes.
enum DigestKey: KeyCodec {
    static func withBytes<R>(of value: Digest, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
        try value.withUnsafeBytes(body)
    }

    static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Digest {
        guard bytes.count == Digest.byteCount else {
            throw StoreError(.damaged, "a chain hash in the index has \(bytes.count) bytes; run `reelkv verify`")
        }
        return bytes.loadLittleEndian(at: 0, as: Digest.self)
    }
}

/// Tenant id ‖ name: the key of a finished head.
struct HeadKey: Hashable {
    var tenant: UInt32
    var name: String

    var bytes: [UInt8] {
        var key: [UInt8] = []
        key.appendBigEndian(tenant)
        return key + name.utf8
    }

    init(tenant: UInt32, name: String) {
        self.tenant = tenant
        self.name = name
    }

    init(bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count > 4 else { throw StoreError(.damaged, "a head's key is damaged; run `reelkv verify`") }
        tenant = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
        name = String(decoding: bytes[4...], as: UTF8.self)
    }
}

/// Writer id ‖ tenant id ‖ name: the key of a head being written.
struct BuildingKey: Hashable {
    var writer: UInt64
    var head: HeadKey

    var bytes: [UInt8] {
        var key: [UInt8] = []
        key.appendBigEndian(UInt32(truncatingIfNeeded: writer >> 32))
        key.appendBigEndian(UInt32(truncatingIfNeeded: writer))
        return key + head.bytes
    }

    init(writer: UInt64, head: HeadKey) {
        self.writer = writer
        self.head = head
    }

    init(bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count > 12 else { throw StoreError(.damaged, "a writer's key is damaged; run `reelkv verify`") }
        writer = UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self))
        head = try HeadKey(bytes: UnsafeRawBufferPointer(rebasing: bytes[8...]))
    }
}

/// Base ‖ order key ‖ 8 bytes of the child's hash: the key under which a base's children stand in token order.
enum ChildKey {
    static let orderStart = Digest.byteCount
    static let suffixBytes = 8

    /// - Parameter keys: of an encrypted tenant, whose order keys are blinded.
    static func prefix(base: Digest, _ tokens: TokenSequence, _ range: Range<Int>, keys: TenantKeys?) -> [UInt8] {
        base.bytes + order(of: tokens, range, base: base, keys: keys)
    }

    static func order(of tokens: TokenSequence, _ range: Range<Int>, base: Digest, keys: TenantKeys?) -> [UInt8] {
        var order: [UInt8] = []
        tokens.appendOrderKey(of: range, to: &order)
        return keys?.blinded(order, base: base) ?? order
    }

    /// The key under which a node stands among the children of its base. Needs no key of an encrypted tenant.
    static func key(of record: NodeRecord, content: UnsafeRawBufferPointer) throws -> [UInt8] {
        let suffix = record.hash.bytes.prefix(suffixBytes)
        guard record.isSealed else {
            let tokens = try TokenSequence(canonical: Array(content))
            return prefix(base: record.base, tokens, 0..<tokens.count, keys: nil) + suffix
        }
        guard let order = SealedValue.header(content)?.order else {
            throw StoreError(.damaged, "node \(record.hash.hex.prefix(16)) is damaged; run `reelkv verify`")
        }
        return record.base.bytes + order + suffix
    }

    static func key(of node: Node) throws -> [UInt8] {
        try node.content.withUnsafeBytes { try key(of: node.record, content: $0) }
    }

    static func key(of node: NodeView) throws -> [UInt8] { try key(of: node.record, content: node.content) }
}

/// Hash ‖ kind ‖ tenant id ‖ name: says that a finished head's tip is that node.
struct TipKey {
    var tip: Digest
    var kind: SequenceKind
    var head: HeadKey

    var bytes: [UInt8] { tip.bytes + [kind.rawValue] + head.bytes }

    init(tip: Digest, kind: SequenceKind, head: HeadKey) {
        self.tip = tip
        self.kind = kind
        self.head = head
    }

    init(bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count > Digest.byteCount + 1, let kind = SequenceKind(rawValue: bytes[Digest.byteCount]) else {
            throw StoreError(.damaged, "a tip's key is damaged; run `reelkv verify`")
        }
        self.kind = kind
        tip = bytes.loadLittleEndian(at: 0, as: Digest.self)
        head = try HeadKey(bytes: UnsafeRawBufferPointer(rebasing: bytes[(Digest.byteCount + 1)...]))
    }
}

/// Tenant id ‖ rank ‖ hash: a node that may be evicted, in the order of eviction among its tenant's.
struct LeafKey {
    var tenant: UInt32
    var rank: UInt64
    var hash: Digest

    var bytes: [UInt8] {
        var key: [UInt8] = []
        key.reserveCapacity(Self.byteCount)
        key.appendBigEndian(tenant)
        key.appendBigEndian(UInt32(truncatingIfNeeded: rank >> 32))
        key.appendBigEndian(UInt32(truncatingIfNeeded: rank))
        return key + hash.bytes
    }

    private static let byteCount = 12 + Digest.byteCount

    init(tenant: UInt32, rank: UInt64, hash: Digest) {
        self.tenant = tenant
        self.rank = rank
        self.hash = hash
    }

    init(bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count == Self.byteCount else { throw StoreError(.damaged, "a leaf's key is damaged; run `reelkv verify`") }
        tenant = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
        rank = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt64.self))
        hash = bytes.loadLittleEndian(at: 12, as: Digest.self)
    }
}
