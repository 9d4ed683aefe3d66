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

    var kind: SequenceKind { record.kind == SequenceKind.video.rawValue ? .video : .session }
    var isEmpty: Bool { record.tokenCount == 0 }

    static let framesMax = 1 << 24
    static let turnsMax = 1 << 24

    func encoded() -> [UInt8] {
        var text: [UInt8] = []
        for (key, value) in provenance.entries.sorted(by: { $0.key < $1.key }) {
            for part in [key, value] {
                text.appendLittleEndian(UInt32(part.utf8.count))
                text.append(contentsOf: part.utf8)
            }
        }
        var record = record
        record.frameCount = UInt32(frames.count)
        record.turnCount = UInt32(turns.count)
        record.provenanceBytes = UInt32(text.count)
        var bytes: [UInt8] = []
        bytes.append(record)
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

    init(bytes: UnsafeRawBufferPointer) throws {
        let damaged = StoreError(.damaged, "the record of a video or session is damaged; run `reelkv verify`")
        guard let record = HeadRecord(at: 0, of: bytes), record.kind <= SequenceKind.session.rawValue,
            record.frameCount <= Self.framesMax, record.turnCount <= Self.turnsMax,
            record.tokenCount <= TokenSequence.countMax
        else { throw damaged }
        let turnStart = HeadRecord.byteCount + Int(record.frameCount) * FrameRecord.byteCount
        let textStart = turnStart + Int(record.turnCount) * TurnRecord.byteCount
        guard bytes.count == textStart + Int(record.provenanceBytes) else { throw damaged }
        self.record = record
        frames = try (0..<Int(record.frameCount)).map { index in
            guard let frame = FrameRecord(at: HeadRecord.byteCount + index * FrameRecord.byteCount, of: bytes),
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

    /// Its pages are not evicted.
    var isPinned: Bool {
        get { flags & Self.pinnedFlag != 0 }
        set { flags = newValue ? flags | Self.pinnedFlag : flags & ~Self.pinnedFlag }
    }
}
