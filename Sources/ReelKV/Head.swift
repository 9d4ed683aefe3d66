import KVCodec

/// One frame of a video, and the tokens that it became.
public struct VideoFrame: Hashable, Sendable {
    /// Index in the sequence of the frame's first token.
    public var firstToken: Int
    public var tokenCount: Int
    /// The frame's time in the video, in seconds.
    public var seconds: Double

    public init(firstToken: Int, tokenCount: Int, seconds: Double) {
        self.firstToken = firstToken
        self.tokenCount = tokenCount
        self.seconds = seconds
    }
}

/// One append to a session.
public struct SessionTurn: Hashable, Sendable {
    /// Index in the sequence of the turn's first token.
    public var firstToken: Int
    /// Unix time of the append.
    public var appendedSeconds: Int64
}

/// Where a sequence came from: what a person, or a program that has to repeat the work, would want to know.
public struct Provenance: Hashable, Sendable, ExpressibleByDictionaryLiteral {
    public var entries: [String: String]

    public init(_ entries: [String: String] = [:]) { self.entries = entries }
    public init(dictionaryLiteral elements: (String, String)...) {
        entries = Dictionary(elements) { _, last in last }
    }

    static let byteCountMax = 1 << 20
    /// Bytes of all keys and values.
    var byteCount: Int { entries.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count } }
}

/// A named tip of a chain: a video, a session, or a sequence being written.
struct Head: Hashable, Sendable {
    var record: HeadRecord
    var frames: [VideoFrame]
    var turns: [SessionTurn]
    var provenance: Provenance
    /// Frames, turns and provenance of an encrypted tenant whose key was not given: they are empty then.
    var sealed: [UInt8]?

    var kind: SequenceKind { record.kind == SequenceKind.video.rawValue ? .video : .session }
    var isEmpty: Bool { record.tokenCount == 0 }

    static let framesMax = 1 << 24
    static let turnsMax = 1 << 24

    func encoded() -> [UInt8] {
        var record = record
        let details: [UInt8]
        if let sealed { details = sealed } else { details = encodedDetails(&record) }
        var bytes: [UInt8] = []
        bytes.append(record)
        return bytes + details
    }

    /// What follows the record, which gets its counts.
    func encodedDetails(_ record: inout HeadRecord) -> [UInt8] {
        var text: [UInt8] = []
        for (key, value) in provenance.entries.sorted(by: { $0.key < $1.key }) {
            for part in [key, value] {
                text.appendLittleEndian(UInt32(part.utf8.count))
                text.append(contentsOf: part.utf8)
            }
        }
        record.frameCount = UInt32(frames.count)
        record.turnCount = UInt32(turns.count)
        record.provenanceBytes = UInt32(text.count)
        var bytes: [UInt8] = []
        for frame in frames {
            bytes.append(
                FrameRecord(
                    firstToken: UInt64(frame.firstToken), tokenCount: UInt32(frame.tokenCount), seconds: frame.seconds))
        }
        for turn in turns {
            bytes.append(TurnRecord(firstToken: UInt64(turn.firstToken), appendedSeconds: turn.appendedSeconds))
        }
        return bytes + text
    }

    init(record: HeadRecord, frames: [VideoFrame] = [], turns: [SessionTurn] = [], provenance: Provenance = [:]) {
        self.record = record
        self.frames = frames
        self.turns = turns
        self.provenance = provenance
    }

    private static let damaged = StoreError(.damaged, "the record of a video or session is damaged; run `reelkv verify`")

    /// Reads a head. What is sealed of it stays so.
    init(bytes: UnsafeRawBufferPointer) throws {
        guard let record = HeadRecord(at: 0, of: bytes), record.kind <= SequenceKind.session.rawValue,
            record.frameCount <= Self.framesMax, record.turnCount <= Self.turnsMax,
            record.tokenCount <= TokenSequence.countMax
        else { throw Self.damaged }
        self.init(record: record)
        let rest = UnsafeRawBufferPointer(rebasing: bytes[HeadRecord.byteCount...])
        if record.isSealed { sealed = Array(rest) } else { try readDetails(rest) }
    }

    /// Reads what follows the record.
    mutating func readDetails(_ bytes: UnsafeRawBufferPointer) throws {
        let damaged = Self.damaged
        let record = record
        let turnStart = Int(record.frameCount) * FrameRecord.byteCount
        let textStart = turnStart + Int(record.turnCount) * TurnRecord.byteCount
        guard bytes.count == textStart + Int(record.provenanceBytes) else { throw damaged }
        frames = try (0..<Int(record.frameCount)).map { index in
            guard let frame = FrameRecord(at: index * FrameRecord.byteCount, of: bytes),
                frame.firstToken <= record.tokenCount, UInt64(frame.tokenCount) <= record.tokenCount - frame.firstToken
            else { throw damaged }
            return VideoFrame(
                firstToken: Int(frame.firstToken), tokenCount: Int(frame.tokenCount), seconds: frame.seconds)
        }
        turns = try (0..<Int(record.turnCount)).map { index in
            guard let turn = TurnRecord(at: turnStart + index * TurnRecord.byteCount, of: bytes),
                turn.firstToken <= record.tokenCount
            else { throw damaged }
            return SessionTurn(firstToken: Int(turn.firstToken), appendedSeconds: turn.appendedSeconds)
        }
        guard let provenance = Provenance(bytes: UnsafeRawBufferPointer(rebasing: bytes[textStart...])) else { throw damaged }
        self.provenance = provenance
    }

    // MARK: - What it is sealed for

    static func place(_ kind: SequenceKind, _ key: HeadKey) -> [UInt8] { [UInt8(ascii: "H"), kind.rawValue] + key.bytes }

    static func place(_ key: BuildingKey) -> [UInt8] { [UInt8(ascii: "B")] + key.bytes }
}

extension Provenance {
    fileprivate init?(bytes: UnsafeRawBufferPointer) {
        var parts: [String] = []
        var offset = 0
        while offset < bytes.count {
            guard bytes.count - offset >= 4 else { return nil }
            let count = Int(bytes.loadLittleEndian(at: offset, as: UInt32.self))
            guard count <= bytes.count - offset - 4 else { return nil }
            parts.append(String(decoding: bytes[(offset + 4)..<(offset + 4 + count)], as: UTF8.self))
            offset += 4 + count
        }
        guard parts.count % 2 == 0 else { return nil }
        let pairs = stride(from: 0, to: parts.count, by: 2).map { (parts[$0], parts[$0 + 1]) }
        self.init(Dictionary(pairs) { _, last in last })
    }
}

extension HeadRecord {
    static let pinnedFlag: UInt8 = 1
    private static let sealedFlag: UInt8 = 2

    /// What follows the record is sealed.
    var isSealed: Bool {
        get { flags & Self.sealedFlag != 0 }
        set { flags = newValue ? flags | Self.sealedFlag : flags & ~Self.sealedFlag }
    }

    /// Its pages are not evicted.
    var isPinned: Bool {
        get { flags & Self.pinnedFlag != 0 }
        set { flags = newValue ? flags | Self.pinnedFlag : flags & ~Self.pinnedFlag }
    }
}
