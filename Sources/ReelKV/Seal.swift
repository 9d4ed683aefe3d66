import CSodium
import KVCodec

/// Authenticated encryption with one key: XChaCha20-Poly1305, the tag apart from the ciphertext, which is as long as the plaintext.
///
/// Knows bytes; not what they are.
struct Seal: Sendable {
    struct Nonce {
        var a: UInt64
        var b: UInt64
        var c: UInt64

        static func random() -> Nonce {
            Nonce(a: .random(in: 0 ... .max), b: .random(in: 0 ... .max), c: .random(in: 0 ... .max))
        }
    }

    struct Tag: Hashable {
        var a: UInt64
        var b: UInt64
    }

    private let key: SecretBytes

    init(_ key: SecretBytes) {
        Sodium.prepare()
        self.key = key
    }

    /// Encrypts `plain` into `sealed`, which is as long and may be the same memory.
    func seal(
        _ plain: UnsafeRawBufferPointer, into sealed: UnsafeMutableRawBufferPointer, additional: UnsafeRawBufferPointer,
        nonce: Nonce
    ) -> Tag {
        withUnsafeTemporaryAllocation(byteCount: 40, alignment: 8) { memory in
            memory.store(nonce)
            key.withUnsafeBytes { key in
                _ = crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
                    sealed.bindMemory(to: UInt8.self).baseAddress!, memory.bindMemory(to: UInt8.self).baseAddress! + 24, nil,
                    plain.bindMemory(to: UInt8.self).baseAddress, UInt64(plain.count),
                    additional.bindMemory(to: UInt8.self).baseAddress, UInt64(additional.count), nil,
                    memory.bindMemory(to: UInt8.self).baseAddress!, key.bindMemory(to: UInt8.self).baseAddress!)
            }
            return Tag(
                a: UnsafeRawBufferPointer(memory).loadLittleEndian(at: 24, as: UInt64.self),
                b: UnsafeRawBufferPointer(memory).loadLittleEndian(at: 32, as: UInt64.self))
        }
    }

    /// Decrypts `sealed` into `plain`, which is as long and may be the same memory.
    ///
    /// - Returns: false where the tag is not right: then nothing is in `plain` that may be used.
    func open(
        _ sealed: UnsafeRawBufferPointer, tag: Tag, into plain: UnsafeMutableRawBufferPointer, additional: UnsafeRawBufferPointer,
        nonce: Nonce
    ) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 40, alignment: 8) { memory in
            memory.store(nonce)
            memory.storeLittleEndian(tag.a, at: 24)
            memory.storeLittleEndian(tag.b, at: 32)
            return key.withUnsafeBytes { key in
                crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
                    plain.bindMemory(to: UInt8.self).baseAddress, nil, sealed.bindMemory(to: UInt8.self).baseAddress!,
                    UInt64(sealed.count), memory.bindMemory(to: UInt8.self).baseAddress! + 24,
                    additional.bindMemory(to: UInt8.self).baseAddress!, UInt64(additional.count),
                    memory.bindMemory(to: UInt8.self).baseAddress!, key.bindMemory(to: UInt8.self).baseAddress!) == 0
            }
        }
    }
}

enum Sodium {
    private static let isPrepared = sodium_init() >= 0

    /// Has libsodium choose its code for this processor; until then it uses what runs on all of them, at a quarter of the speed.
    static func prepare() { _ = isPrepared }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func store(_ nonce: Seal.Nonce) {
        storeLittleEndian(nonce.a, at: 0)
        storeLittleEndian(nonce.b, at: 8)
        storeLittleEndian(nonce.c, at: 16)
    }
}

/// A value of the index that is sealed: a `SealedHeader`, an order key in the clear, the ciphertext (schema/FORMAT.md, "Sealed values").
enum SealedValue {
    /// - Parameters:
    ///   - order: what of it is to be read without the key.
    ///   - place: what it is stored under; it opens nowhere else.
    static func seal(_ plain: [UInt8], order: [UInt8] = [], epoch: UInt32, place: [UInt8], with seal: Seal) -> [UInt8] {
        let nonce = Seal.Nonce.random()
        var bytes = [UInt8](repeating: 0, count: SealedHeader.byteCount) + order + plain
        let start = SealedHeader.byteCount + order.count
        let tag = bytes.withUnsafeMutableBytes { bytes in
            let body = UnsafeMutableRawBufferPointer(rebasing: bytes[start...])
            return (order + place).withUnsafeBytes {
                seal.seal(UnsafeRawBufferPointer(body), into: body, additional: $0, nonce: nonce)
            }
        }
        var header: [UInt8] = []
        header.append(
            SealedHeader(
                keyEpoch: epoch, orderBytes: UInt32(order.count), nonceA: nonce.a, nonceB: nonce.b, nonceC: nonce.c, tagA: tag.a,
                tagB: tag.b))
        bytes.replaceSubrange(..<SealedHeader.byteCount, with: header)
        return bytes
    }

    /// The header and the order key; nil for bytes that are no sealed value.
    static func header(_ bytes: UnsafeRawBufferPointer) -> (header: SealedHeader, order: UnsafeRawBufferPointer)? {
        guard let header = SealedHeader(at: 0, of: bytes), Int(header.orderBytes) <= bytes.count - SealedHeader.byteCount else {
            return nil
        }
        let order = bytes[SealedHeader.byteCount..<SealedHeader.byteCount + Int(header.orderBytes)]
        return (header, UnsafeRawBufferPointer(rebasing: order))
    }

    /// - Returns: nil where it was not sealed with this key for this place, or is damaged.
    static func open(_ bytes: UnsafeRawBufferPointer, place: [UInt8], with seal: Seal) -> [UInt8]? {
        guard let (header, order) = Self.header(bytes) else { return nil }
        let sealed = UnsafeRawBufferPointer(rebasing: bytes[(SealedHeader.byteCount + order.count)...])
        var plain = [UInt8](repeating: 0, count: sealed.count)
        let isOpen = plain.withUnsafeMutableBytes { plain in
            (Array(order) + place).withUnsafeBytes { additional in
                seal.open(
                    sealed, tag: Seal.Tag(a: header.tagA, b: header.tagB), into: plain, additional: additional,
                    nonce: Seal.Nonce(a: header.nonceA, b: header.nonceB, c: header.nonceC))
            }
        }
        return isOpen ? plain : nil
    }
}
