/// Puts a layer's section together: parts, their streams, and the streams' bytes.
struct SectionBuilder {
    private var parts: [PartRecord] = []
    private var streams: [StreamRecord] = []
    private var data: [UInt8] = []
    /// The bytes of shared streams, by kind.
    private var shared: [[UInt8]] = []
    private var sharedBytes = 0
    private let compressor: Compressor

    /// A frame takes time to open, so small streams share one.
    private static let sharedStreamBytesMax = 64 << 10

    init(compressor: Compressor) {
        self.compressor = compressor
    }

    /// Starts a part; the streams added next are its own.
    mutating func beginPart(_ part: PartRecord) {
        parts.append(part)
    }

    mutating func addStream(_ kind: StreamKind, plane: Int = 0, _ bytes: UnsafeRawBufferPointer) {
        parts[parts.count - 1].streamCount += 1
        if isShared(kind, bytes.count) {
            while shared.count <= kind.rawValue { shared.append([]) }
            shared[Int(kind.rawValue)].append(contentsOf: bytes)
            sharedBytes += bytes.count
            add(kind, .shared, plane: plane, bytes.count)
            return
        }
        let start = data.count
        let encoding = compressor.append(bytes, to: &data, savedShare: savedShare(kind))
        add(kind, encoding, plane: plane, data.count - start)
    }

    /// Uniform codes are most of a restore's bytes, and the fastest to decode: more must be saved to make up for it.
    private func savedShare(_ kind: StreamKind) -> Int {
        kind == .codes && parts.last?.scheme == Scheme.uniform.rawValue ? 3 : 5
    }

    /// Metadata compresses well and comes in many small streams.
    private func isShared(_ kind: StreamKind, _ byteCount: Int) -> Bool {
        switch kind {
        case .codes, .exactPlane, .anchors: false
        case .scales, .means, .mask, .exponentMaxima:
            byteCount <= Self.sharedStreamBytesMax && sharedBytes + byteCount <= PageFormat.sharedBytesMax
        }
    }

    private mutating func add(_ kind: StreamKind, _ encoding: StreamEncoding, plane: Int, _ storedBytes: Int) {
        streams.append(
            StreamRecord(
                kind: kind.rawValue, encoding: encoding.rawValue, plane: UInt8(plane), storedBytes: UInt32(storedBytes)))
    }

    mutating func addStream(_ kind: StreamKind, plane: Int = 0, _ bytes: [UInt8]) {
        bytes.withUnsafeBytes { addStream(kind, plane: plane, $0) }
    }

    /// The section's bytes.
    func build() -> [UInt8] {
        let frame = sharedBytes == 0 ? [] : compressor.frame(of: shared.filter { !$0.isEmpty })
        var section: [UInt8] = []
        section.reserveCapacity(
            SectionHeader.byteCount + parts.count * PartRecord.byteCount + streams.count * StreamRecord.byteCount + data.count
                + frame.count)
        section.append(
            SectionHeader(partCount: UInt16(parts.count), streamCount: UInt16(streams.count), sharedBytes: UInt32(frame.count)))
        for part in parts { section.append(part) }
        for stream in streams { section.append(stream) }
        section.append(contentsOf: data)
        section.append(contentsOf: frame)
        return section
    }
}
