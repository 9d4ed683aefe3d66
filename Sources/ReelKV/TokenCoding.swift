import KVCodec

// The canonical form of a page's tokens: the bytes that the chain hash covers and that nodes and page images keep.
// schema/FORMAT.md, "Canonical tokens", is normative. One sequence has exactly one form.

enum TokenTag {
    static let text: UInt8 = 1
    static let media: UInt8 = 2
    static let positions: UInt8 = 3
}

extension TokenSequence {
    /// Appends the canonical form of `range` to `bytes`.
    ///
    /// - Parameter origin: the index in the whole sequence of this value's token 0, from which default positions count.
    func appendCanonical(of range: Range<Int>, origin: Int, to bytes: inout [UInt8]) {
        forEachRun(in: range) { run in
            switch run {
            case .text(let part):
                appendText(part, to: &bytes)
            case .media(let digest, let offset, let part):
                bytes.append(TokenTag.media)
                bytes.appendLittleEndian(UInt32(offset))
                bytes.appendLittleEndian(UInt32(part.count))
                digest.withUnsafeBytes { bytes.append(contentsOf: $0) }
            }
        }
        appendPositions(range, origin: origin, to: &bytes)
    }

    /// The canonical form of all the tokens.
    func canonical(origin: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        appendCanonical(of: 0..<count, origin: origin, to: &bytes)
        return bytes
    }

    /// Ids take 2, 3 or 4 bytes, as few as the run's greatest id allows: half the bytes to hash and keep for most vocabularies.
    private func appendText(_ range: Range<Int>, to bytes: inout [UInt8]) {
        ids.withUnsafeBufferPointer { ids in
            let ids = UnsafeBufferPointer(rebasing: ids[range])
            let union = ids.reduce(UInt32(0)) { $0 | UInt32(bitPattern: $1) }
            let width = union < 1 << 16 ? 2 : union < 1 << 24 ? 3 : 4
            bytes.append(TokenTag.text)
            bytes.append(UInt8(width))
            bytes.appendLittleEndian(UInt32(ids.count))
            withUnsafeTemporaryAllocation(byteCount: ids.count * width, alignment: 8) { packed in
                switch width {
                case 2: Self.packPairs(ids, to: packed)
                case 3: Self.packTriples(ids, to: packed)
                default:
                    for (index, id) in ids.enumerated() { packed.storeLittleEndian(id, at: 4 * index) }
                }
                bytes.append(contentsOf: UnsafeRawBufferPointer(packed))
            }
        }
    }

    private static func packPairs(_ ids: UnsafeBufferPointer<Int32>, to packed: UnsafeMutableRawBufferPointer) {
        for (index, id) in ids.enumerated() { packed.storeLittleEndian(UInt16(truncatingIfNeeded: id), at: 2 * index) }
    }

    /// Four ids to three words: one after the other takes several times as long, and a look-up does it for every page.
    private static func packTriples(_ ids: UnsafeBufferPointer<Int32>, to packed: UnsafeMutableRawBufferPointer) {
        var index = 0
        while index + 4 <= ids.count {
            let (a, b) = (UInt32(bitPattern: ids[index]), UInt32(bitPattern: ids[index + 1]))
            let (c, d) = (UInt32(bitPattern: ids[index + 2]), UInt32(bitPattern: ids[index + 3]))
            packed.storeLittleEndian(UInt64(a) | UInt64(b) << 24 | UInt64(c) << 48, at: 3 * index)
            packed.storeLittleEndian(c >> 16 | d << 8, at: 3 * index + 8)
            index += 4
        }
        for index in index..<ids.count {
            packed.storeLittleEndian(UInt16(truncatingIfNeeded: ids[index]), at: 3 * index)
            packed[3 * index + 2] = UInt8(truncatingIfNeeded: ids[index] >> 16)
        }
    }

    /// Position ids are part of a page's identity, but only where they are not the default.
    private func appendPositions(_ range: Range<Int>, origin: Int, to bytes: inout [UInt8]) {
        guard let positions = explicitPositions(of: range, origin: origin) else { return }
        bytes.append(TokenTag.positions)
        bytes.append(UInt8(positions.count))
        bytes.appendLittleEndian(UInt32(range.count))
        for stream in positions {
            for value in stream { bytes.appendLittleEndian(value) }
        }
    }

    /// The position ids of `range`, or nil where every stream counts 0, 1, 2, ... with the token's index in the sequence.
    func explicitPositions(of range: Range<Int>, origin: Int) -> [[Int32]]? {
        guard let positions else { return nil }
        let isDefault = positions.allSatisfy { stream in range.allSatisfy { Int(stream[$0]) == origin + $0 } }
        return isDefault ? nil : positions.map { Array($0[range]) }
    }
}

extension [UInt8] {
    mutating func appendLittleEndian<T: LittleEndianStorable>(_ value: T) {
        let start = count
        append(contentsOf: repeatElement(0, count: MemoryLayout<T>.size))
        withUnsafeMutableBytes { $0.storeLittleEndian(value, at: start) }
    }
}

/// Reads a page's canonical token bytes run by run, trusting no length.
struct CanonicalTokens {
    enum Run {
        case text(width: Int, ids: UnsafeRawBufferPointer, count: Int)
        case media(digest: Digest, offset: Int, count: Int)
        case positions(streams: Int, count: Int, values: UnsafeRawBufferPointer)
    }

    private var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    /// The next run; nil at the end.
    /// - Throws: `StoreError.damaged` when the bytes are not canonical tokens.
    mutating func next() throws -> Run? {
        guard let tag = rest.first else { return nil }
        switch tag {
        case TokenTag.text:
            let header = try take(6)
            let width = Int(header[1])
            let count = Int(header.loadLittleEndian(at: 2, as: UInt32.self))
            guard (2...4).contains(width), count > 0, count <= TokenSequence.pageTokensMax else {
                throw Self.damaged
            }
            return .text(width: width, ids: try take(count * width), count: count)
        case TokenTag.media:
            let record = try take(41)
            let offset = Int(record.loadLittleEndian(at: 1, as: UInt32.self))
            let count = Int(record.loadLittleEndian(at: 5, as: UInt32.self))
            guard count > 0, count <= TokenSequence.pageTokensMax, offset <= TokenSequence.countMax else { throw Self.damaged }
            return .media(digest: record.loadLittleEndian(at: 9, as: Digest.self), offset: offset, count: count)
        case TokenTag.positions:
            let header = try take(6)
            let streams = Int(header[1])
            let count = Int(header.loadLittleEndian(at: 2, as: UInt32.self))
            guard streams == 1 || streams == 3, count <= TokenSequence.pageTokensMax else { throw Self.damaged }
            return .positions(streams: streams, count: count, values: try take(4 * count * streams))
        default:
            throw Self.damaged
        }
    }

    private mutating func take(_ count: Int) throws -> UnsafeRawBufferPointer {
        guard count <= rest.count else { throw Self.damaged }
        defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
        return UnsafeRawBufferPointer(rebasing: rest[..<count])
    }

    static let damaged = StoreError(.damaged, "a node's token bytes are not canonical tokens; run `reelkv verify`")

    static func id(_ index: Int, width: Int, of ids: UnsafeRawBufferPointer) -> Int32 {
        var id: UInt32 = 0
        for byte in 0..<width { id |= UInt32(ids[index * width + byte]) << (8 * byte) }
        return Int32(bitPattern: id)
    }
}

extension TokenSequence {
    /// Reads a page's canonical bytes back. Placeholder ids are not kept by the canonical form: they read as -1.
    ///
    /// - Throws: `StoreError.damaged` for bytes that are not the canonical tokens of a page.
    init(canonical bytes: [UInt8]) throws {
        var ids: [Int32] = []
        var media: [MediaSpan] = []
        var positions: [[Int32]]?
        try bytes.withUnsafeBytes { buffer in
            var reader = CanonicalTokens(buffer)
            while let run = try reader.next() {
                guard ids.count <= Self.pageTokensMax else { throw CanonicalTokens.damaged }
                switch run {
                case .text(let width, let packed, let count):
                    for index in 0..<count { ids.append(CanonicalTokens.id(index, width: width, of: packed)) }
                case .media(let digest, let offset, let count):
                    media.append(MediaSpan(digest: digest, firstToken: ids.count, count: count, mediaOffset: offset))
                    ids.append(contentsOf: repeatElement(-1, count: count))
                case .positions(let streams, let count, let values):
                    positions = (0..<streams).map { stream in
                        (0..<count).map { values.loadLittleEndian(at: 4 * (stream * count + $0), as: Int32.self) }
                    }
                }
            }
        }
        do { try self.init(ids: ids, media: media, positions: positions) } catch { throw CanonicalTokens.damaged }
    }
}
