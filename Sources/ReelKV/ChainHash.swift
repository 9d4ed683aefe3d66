import CSodium
public import KVCodec

/// Names pages by everything they depend on: `h(page) = BLAKE2b-256(key: tenant salt, h(previous page) ‖ tokens)`, where
/// the chain's root covers the format version, the page size and the whole model. Without the salt nobody can tell from a
/// hash which tokens it stands for, nor make two tenants' chains meet.
struct ChainHasher: CustomReflectable {
    private let salt: Digest
    /// The hash that stands before a sequence's first page.
    let root: Digest

    /// - Parameter modelBytes: the canonical bytes of the model: fingerprint, element type and every layer's geometry.
    init(salt: Digest, modelBytes: [UInt8], pageTokens: Int) {
        self.salt = salt
        var seed = Array("ReelKV chain 1".utf8)
        seed.appendLittleEndian(UInt32(pageTokens))
        root = Self.blake2b([seed, modelBytes], key: salt)
    }

    /// The hash of a full page whose canonical tokens are `tokens`, after page `base`.
    func page(after base: Digest, tokens: [UInt8]) -> Digest {
        Self.blake2b(prefix: UInt8(ascii: "P"), base, start: 0, tokens, key: salt)
    }

    /// The hash of a tail piece that holds the tokens from `start` on of a page; `tokens` are the page's canonical tokens from its
    /// first one on. Those before `start` lie in `parent`: a piece behind a lossy page is not the one behind an exact piece.
    func piece(after parent: Digest, start: Int, tokens: [UInt8]) -> Digest {
        Self.blake2b(prefix: UInt8(ascii: "T"), parent, start: UInt32(start), tokens, key: salt)
    }

    /// The hash that a node must be stored under.
    func hash(of node: NodeRecord, tokens: [UInt8]) -> Digest {
        node.kind == Node.Kind.page.rawValue
            ? page(after: node.parent, tokens: tokens) : piece(after: node.parent, start: Int(node.start), tokens: tokens)
    }

    /// Without the salt, which a description of what holds a hasher would show.
    var customMirror: Mirror { Mirror(self, children: ["root": root]) }

    private static func blake2b(prefix: UInt8, _ parent: Digest, start: UInt32, _ tokens: [UInt8], key: Digest) -> Digest {
        withUnsafeTemporaryAllocation(byteCount: 37 + tokens.count, alignment: 8) { message in
            message[0] = prefix
            message.storeLittleEndian(start, at: 1)
            message.storeLittleEndian(parent, at: 5)
            tokens.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: message[37...]).copyMemory(from: $0) }
            return blake2b(UnsafeRawBufferPointer(message), key: key)
        }
    }

    private static func blake2b(_ parts: [[UInt8]], key: Digest) -> Digest {
        Array(parts.joined()).withUnsafeBytes { blake2b($0, key: key) }
    }

    private static func blake2b(_ message: UnsafeRawBufferPointer, key: Digest) -> Digest {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Digest.byteCount) { out in
            key.withUnsafeBytes { key in
                let bytes = message.bindMemory(to: UInt8.self)
                let status = crypto_generichash(
                    out.baseAddress!, out.count, bytes.baseAddress, UInt64(bytes.count),
                    key.bindMemory(to: UInt8.self).baseAddress, key.count)
                // libsodium refuses only lengths out of its range, and these are constants within it
                precondition(status == 0, "BLAKE2b refused a 32-byte key and output")
            }
            return UnsafeRawBufferPointer(out).loadLittleEndian(at: 0, as: Digest.self)
        }
    }

    /// 32 random bytes, for a tenant's salt.
    static func randomSalt() -> Digest {
        withUnsafeTemporaryAllocation(byteCount: Digest.byteCount, alignment: 8) { bytes in
            randombytes_buf(bytes.baseAddress!, bytes.count)
            return UnsafeRawBufferPointer(bytes).loadLittleEndian(at: 0, as: Digest.self)
        }
    }
}

extension Digest {
    /// The unkeyed BLAKE2b-256 digest of `bytes`: for media identities made from text and numbers.
    public static func blake2b(_ bytes: [UInt8]) -> Digest {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Digest.byteCount) { out in
            let status = bytes.withUnsafeBufferPointer {
                crypto_generichash(out.baseAddress!, out.count, $0.baseAddress, UInt64($0.count), nil, 0)
            }
            precondition(status == 0, "BLAKE2b refused a 32-byte output")
            return UnsafeRawBufferPointer(out).loadLittleEndian(at: 0, as: Digest.self)
        }
    }
}
