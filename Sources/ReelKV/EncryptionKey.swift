import CSodium
import KVCodec

/// The key of an encrypted tenant: 32 bytes that the store never has. Its memory is cleared when it is let go.
public struct EncryptionKey: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    public static let byteCount = 32

    let secret: SecretBytes

    /// A key from a random source fit for it.
    public static func random() -> EncryptionKey { EncryptionKey(secret: .random(byteCount)) }

    init(secret: SecretBytes) { self.secret = secret }

    /// - Parameter bytes: 32 of them; they are copied.
    /// - Throws: `StoreError.invalidArgument`.
    public init(bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count == Self.byteCount else {
            throw StoreError(.invalidArgument, "a key has \(Self.byteCount) bytes, not \(bytes.count)")
        }
        secret = SecretBytes(bytes)
    }

    /// - Parameter hex: 64 hexadecimal digits.
    /// - Throws: `StoreError.invalidArgument`, without telling what was given.
    public init(hex: String) throws {
        guard let digits = Digest(hex: hex) else {
            throw StoreError(.invalidArgument, "a key in text is \(2 * Self.byteCount) hexadecimal digits")
        }
        self = try digits.withUnsafeBytes { try EncryptionKey(bytes: $0) }
    }

    /// Reads a key file: 32 bytes, or 64 hexadecimal digits and perhaps the end of a line.
    ///
    /// - Throws: `StoreError` with the codes `invalidArgument` for a file that holds no key, or that others than its owner may read or
    ///   write; `notFound`, `inputOutput`.
    public init(contentsOf path: String) throws {
        var bytes = try Platform.readSecret(path, byteCountMax: 1 << 10)
        defer { for index in bytes.indices { bytes[index] = 0 } }
        if bytes.count == Self.byteCount {
            self = try bytes.withUnsafeBytes { try EncryptionKey(bytes: $0) }
            return
        }
        while let last = bytes.last, last == UInt8(ascii: "\n") || last == UInt8(ascii: "\r") { bytes.removeLast() }
        do { self = try EncryptionKey(hex: String(decoding: bytes, as: UTF8.self)) } catch {
            throw StoreError(
                .invalidArgument,
                "\(path) is no key file: it holds 32 bytes, or 64 hexadecimal digits, as `reelkv tenant new-key` writes them")
        }
    }

    /// Writes the key into a new file, for its owner alone.
    ///
    /// - Throws: `StoreError` with the codes `alreadyExists`, `inputOutput`.
    public func save(to path: String) throws { try Platform.writeNewSecret(path, Array((hex + "\n").utf8)) }

    /// The key as 64 hexadecimal digits, for whoever has to keep it.
    public var hex: String {
        secret.withUnsafeBytes { bytes in bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
    }

    public var description: String { "EncryptionKey" }
    public var debugDescription: String { "EncryptionKey" }

    public static func == (left: Self, right: Self) -> Bool {
        left.secret.withUnsafeBytes { left in
            right.secret.withUnsafeBytes { sodium_memcmp(left.baseAddress!, $0.baseAddress!, byteCount) == 0 }
        }
    }

    public func hash(into hasher: inout Hasher) { secret.withUnsafeBytes { hasher.combine(bytes: $0) } }
}

/// Bytes that nobody else should see: cleared when they are let go, and kept out of descriptions.
final class SecretBytes: @unchecked Sendable, CustomReflectable {
    private let bytes: UnsafeMutableRawBufferPointer

    init(_ source: UnsafeRawBufferPointer) {
        bytes = .allocate(byteCount: source.count, alignment: 16)
        bytes.copyMemory(from: source)
    }

    private init(count: Int) { bytes = .allocate(byteCount: count, alignment: 16) }

    static func random(_ count: Int) -> SecretBytes {
        let secret = SecretBytes(count: count)
        randombytes_buf(secret.bytes.baseAddress!, count)
        return secret
    }

    deinit {
        sodium_memzero(bytes.baseAddress!, bytes.count)
        bytes.deallocate()
    }

    func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(bytes))
    }

    /// A key of 32 bytes for one purpose: `crypto_kdf_derive_from_key` with a context of 8 letters.
    func derived(for context: StaticString) -> SecretBytes {
        precondition(context.utf8CodeUnitCount == Int(crypto_kdf_CONTEXTBYTES), "contexts have 8 letters")
        let key = SecretBytes(count: Int(crypto_kdf_KEYBYTES))
        withUnsafeBytes { own in
            let status = context.utf8Start.withMemoryRebound(to: CChar.self, capacity: 8) { context in
                crypto_kdf_derive_from_key(
                    key.bytes.bindMemory(to: UInt8.self).baseAddress!, key.bytes.count, 1, context,
                    own.bindMemory(to: UInt8.self).baseAddress!)
            }
            // libsodium refuses only lengths out of its range, and these are constants within it
            precondition(status == 0, "a key could not be derived")
        }
        return key
    }

    var customMirror: Mirror { Mirror(self, children: []) }
}
