import CSodium
import KVCodec

/// What an encrypted tenant's key opens: its salt, and the data keys that its pages and records are sealed with.
///
/// Knows how keys lead to each other; not records, nor what is sealed.
struct TenantKeys: Sendable, CustomReflectable {
    /// One data key, by which something is or was sealed.
    struct Epoch: Sendable {
        var number: UInt32
        let key: SecretBytes
        let images: Seal
        let values: Seal

        init(number: UInt32, key: SecretBytes) {
            self.number = number
            self.key = key
            images = Seal(key.derived(for: "rkvimage"))
            values = Seal(key.derived(for: "rkvindex"))
        }
    }

    let tenant: UInt32
    let name: String
    let salt: Digest
    /// The tenant's own key.
    let owner: EncryptionKey
    /// The newest last. Never empty.
    private(set) var epochs: [Epoch]
    private let orderKey: SecretBytes

    var current: Epoch { epochs[epochs.count - 1] }

    /// Keys of a tenant that is new.
    init(tenant: UInt32, name: String, owner: EncryptionKey) {
        self.init(
            tenant: tenant, name: name, owner: owner, salt: ChainHasher.randomSalt(),
            epochs: [Epoch(number: 1, key: .random(EncryptionKey.byteCount))])
    }

    private init(tenant: UInt32, name: String, owner: EncryptionKey, salt: Digest, epochs: [Epoch]) {
        self.tenant = tenant
        self.owner = owner
        self.name = name
        self.salt = salt
        self.epochs = epochs
        orderKey = salt.withUnsafeBytes { SecretBytes($0) }.derived(for: "rkvorder")
    }

    func epoch(_ number: UInt32) -> Epoch? { epochs.first { $0.number == number } }

    /// With one more data key, which takes effect, under another key of the tenant's.
    func withNewEpoch(owner: EncryptionKey) -> TenantKeys {
        let new = Epoch(number: current.number + 1, key: .random(EncryptionKey.byteCount))
        return TenantKeys(tenant: tenant, name: name, owner: owner, salt: salt, epochs: epochs + [new])
    }

    /// With the data key in effect only: for when nothing is sealed with another any more.
    func withCurrentOnly() -> TenantKeys {
        var keys = self
        keys.epochs = [current]
        return keys
    }

    /// Without salt and keys, which a description of what holds them would show.
    var customMirror: Mirror { Mirror(self, children: ["tenant": tenant, "name": name]) }

    // MARK: - The secret

    private static func place(_ tenant: UInt32) -> [UInt8] {
        var place = [UInt8(ascii: "S")]
        place.appendLittleEndian(tenant)
        return place
    }

    /// What the tenant's record holds of them, sealed with the tenant's key.
    func sealed() -> [UInt8] {
        var secret = salt.bytes
        for epoch in epochs {
            secret.appendLittleEndian(epoch.number)
            epoch.key.withUnsafeBytes { secret.append(contentsOf: $0) }
        }
        defer { for index in secret.indices { secret[index] = 0 } }
        return SealedValue.seal(secret, epoch: 0, place: Self.place(tenant), with: Seal(owner.secret.derived(for: "rkvtenan")))
    }

    /// - Returns: nil for another key than the tenant's, or a damaged secret.
    init?(opening sealed: [UInt8], tenant: UInt32, name: String, with key: EncryptionKey) {
        let seal = Seal(key.secret.derived(for: "rkvtenan"))
        let opened = sealed.withUnsafeBytes { SealedValue.open($0, place: Self.place(tenant), with: seal) }
        guard var secret = opened else { return nil }
        defer { for index in secret.indices { secret[index] = 0 } }
        let entryBytes = 4 + EncryptionKey.byteCount
        guard secret.count > Digest.byteCount, (secret.count - Digest.byteCount) % entryBytes == 0 else { return nil }
        let (salt, epochs) = secret.withUnsafeBytes { bytes in
            let epochs = stride(from: Digest.byteCount, to: bytes.count, by: entryBytes).map { offset in
                Epoch(
                    number: bytes.loadLittleEndian(at: offset, as: UInt32.self),
                    key: SecretBytes(UnsafeRawBufferPointer(rebasing: bytes[offset + 4..<offset + entryBytes])))
            }
            return (bytes.loadLittleEndian(at: 0, as: Digest.self), epochs)
        }
        self.init(tenant: tenant, name: name, owner: key, salt: salt, epochs: epochs)
    }

    // MARK: - Order keys

    /// An order key that tells of the tokens only which of them siblings have in common.
    func blinded(_ order: [UInt8], base: Digest) -> [UInt8] {
        var state = base.withUnsafeBytes { siphash($0) }
        var blinded: [UInt8] = []
        blinded.reserveCapacity(order.count)
        withUnsafeTemporaryAllocation(byteCount: 12, alignment: 8) { message in
            for offset in stride(from: 0, to: order.count, by: 4) {
                message.storeLittleEndian(state, at: 0)
                for index in 0..<4 { message[8 + index] = order[offset + index] }
                state = siphash(UnsafeRawBufferPointer(message))
                blinded.appendBigEndian(UInt32(truncatingIfNeeded: state >> 32))
            }
        }
        return blinded
    }

    private func siphash(_ message: UnsafeRawBufferPointer) -> UInt64 {
        withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { out in
            orderKey.withUnsafeBytes { key in
                _ = crypto_shorthash(
                    out.bindMemory(to: UInt8.self).baseAddress!, message.bindMemory(to: UInt8.self).baseAddress!,
                    UInt64(message.count), key.bindMemory(to: UInt8.self).baseAddress!)
            }
            return UnsafeRawBufferPointer(out).loadLittleEndian(at: 0, as: UInt64.self)
        }
    }
}
