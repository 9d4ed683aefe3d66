/// A stretch of keys, in the order of their bytes.
public struct KeyRange<Key: KeyCodec> {
    @usableFromInline
    enum Bound {
        case unbounded
        case included(Key.Value)
        case excluded(Key.Value)
    }

    @usableFromInline
    enum Extent {
        case between(Bound, Bound)
        case prefix([UInt8])
    }

    @usableFromInline let extent: Extent

    @usableFromInline
    init(extent: Extent) { self.extent = extent }

    /// Every key.
    @inlinable
    public static var all: Self { Self(extent: .between(.unbounded, .unbounded)) }

    /// `key` and all that sort after it.
    @inlinable
    public static func from(_ key: Key.Value) -> Self { Self(extent: .between(.included(key), .unbounded)) }

    /// All keys that sort after `key`.
    @inlinable
    public static func after(_ key: Key.Value) -> Self { Self(extent: .between(.excluded(key), .unbounded)) }

    /// All keys that sort before `key`.
    @inlinable
    public static func upTo(_ key: Key.Value) -> Self { Self(extent: .between(.unbounded, .excluded(key))) }

    /// `key` and all that sort before it.
    @inlinable
    public static func through(_ key: Key.Value) -> Self { Self(extent: .between(.unbounded, .included(key))) }

    /// `lower` up to, but not including, `upper`; no keys where `upper` does not sort after `lower`.
    @inlinable
    public static func from(_ lower: Key.Value, upTo upper: Key.Value) -> Self {
        Self(extent: .between(.included(lower), .excluded(upper)))
    }

    /// `lower` up to and including `upper`; no keys where `upper` sorts before `lower`.
    @inlinable
    public static func from(_ lower: Key.Value, through upper: Key.Value) -> Self {
        Self(extent: .between(.included(lower), .included(upper)))
    }

    /// All keys whose encoding begins with `bytes`; every key where there are none.
    @inlinable
    public static func prefix(_ bytes: [UInt8]) -> Self { Self(extent: .prefix(bytes)) }
}

extension KeyRange.Bound: Sendable where Key.Value: Sendable {}
extension KeyRange.Extent: Sendable where Key.Value: Sendable {}
extension KeyRange: Sendable where Key.Value: Sendable {}

// MARK: - Encoded bounds

/// A key range as bytes: `lower` to `upper`, each included or not. No lower bound is the empty one.
@usableFromInline
struct EncodedRange {
    @usableFromInline var lower: [UInt8] = []
    @usableFromInline var includesLower = true
    @usableFromInline var upper: [UInt8]?
    @usableFromInline var includesUpper = false

    @usableFromInline
    init() {}

    @usableFromInline
    init(prefix: [UInt8]) {
        lower = prefix
        // The first key after all that begin with the prefix: the prefix counted up by one, as a number. After ff… there is none.
        guard let last = prefix.lastIndex(where: { $0 != 0xff }) else { return }
        upper = Array(prefix[..<last]) + [prefix[last] + 1]
    }

    /// Whether `key`, known not to lie before the range, lies in it.
    @usableFromInline
    func isNotAfter(_ key: UnsafeRawBufferPointer) -> Bool {
        guard let upper else { return true }
        let order = upper.withUnsafeBytes { compareBytes(key, $0) }
        return order < 0 || (includesUpper && order == 0)
    }

    /// Whether `key`, known not to lie after the range, lies in it.
    @usableFromInline
    func isNotBefore(_ key: UnsafeRawBufferPointer) -> Bool {
        let order = lower.withUnsafeBytes { compareBytes(key, $0) }
        return order > 0 || (includesLower && order == 0)
    }
}

extension KeyRange {
    /// - Throws: ``LMDBError/Code/badValueSize`` for a bound longer than any key can be.
    @inlinable
    func encoded() throws -> EncodedRange {
        var range = EncodedRange()
        switch extent {
        case .between(let lower, let upper):
            if let lower = try Self.encode(lower) { (range.lower, range.includesLower) = lower }
            if let upper = try Self.encode(upper) { (range.upper, range.includesUpper) = upper }
        case .prefix(let bytes):
            range = EncodedRange(prefix: bytes)
        }
        guard max(range.lower.count, range.upper?.count ?? 0) <= LMDBLimits.maxKeySize else {
            throw badKeySize(max(range.lower.count, range.upper?.count ?? 0))
        }
        return range
    }

    @inlinable
    static func encode(_ bound: Bound) throws -> (bytes: [UInt8], isIncluded: Bool)? {
        switch bound {
        case .unbounded: nil
        case .included(let key): (try Key.withBytes(of: key) { [UInt8]($0) }, true)
        case .excluded(let key): (try Key.withBytes(of: key) { [UInt8]($0) }, false)
        }
    }
}
