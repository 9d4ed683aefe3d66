/// Puts a layer's section together: parts, their streams, and the streams' bytes.
struct SectionBuilder {
    private var parts: [PartRecord] = []
    private var streams: [StreamRecord] = []
    private var data: [UInt8] = []
    private let compressor: Compressor

    init(compressor: Compressor) {
        self.compressor = compressor
    }

    /// Starts a part; the streams added next are its own.
    mutating func beginPart(_ part: PartRecord) {
        parts.append(part)
    }

    mutating func addStream(_ kind: StreamKind, plane: Int = 0, _ bytes: UnsafeRawBufferPointer) {
        let start = data.count
        let encoding = compressor.append(bytes, to: &data)
        streams.append(
            StreamRecord(
                kind: kind.rawValue, encoding: encoding.rawValue, plane: UInt8(plane), storedBytes: UInt32(data.count - start)))
        parts[parts.count - 1].streamCount += 1
    }

    mutating func addStream(_ kind: StreamKind, plane: Int = 0, _ bytes: [UInt8]) {
        bytes.withUnsafeBytes { addStream(kind, plane: plane, $0) }
    }

    /// The section's bytes.
    func build() -> [UInt8] {
        var section: [UInt8] = []
        section.reserveCapacity(
            SectionHeader.byteCount + parts.count * PartRecord.byteCount + streams.count * StreamRecord.byteCount + data.count)
        section.append(SectionHeader(partCount: UInt16(parts.count), streamCount: UInt16(streams.count)))
        for part in parts { section.append(part) }
        for stream in streams { section.append(stream) }
        section.append(contentsOf: data)
        return section
    }
}
