/// The streams that a section keeps in one compressed frame, ordered by their kinds and then as in the section's table.
struct SharedFrame {
    private let bytes: UnsafeRawBufferPointer
    private let storedBytes: Int
    /// Where the next stream of each kind begins.
    private let next: UnsafeMutableBufferPointer<UInt32>

    /// Decompresses the frame at the end of a section into `scratch`.
    /// - Parameter table: where the section's stream records begin. They lie whole within `section`.
    init(
        of section: UnsafeRawBufferPointer, table: Int, _ header: SectionHeader, scratch: DecodeScratch
    ) throws(CodecError) {
        storedBytes = Int(header.sharedBytes)
        next = scratch.bytes(.sharedOffsets, 4 * 256).bindMemory(to: UInt32.self)
        next.update(repeating: 0)
        var total = 0
        for index in 0..<Int(header.streamCount) {
            guard let record = StreamRecord(at: table + index * StreamRecord.byteCount, of: section),
                record.encoding == StreamEncoding.shared.rawValue
            else { continue }
            total += Int(record.storedBytes)
            guard total <= PageFormat.sharedBytesMax else { throw .damaged("a section's shared streams are too long") }
            next[Int(record.kind)] += record.storedBytes
        }
        var start: UInt32 = 0
        for kind in next.indices {
            let length = next[kind]
            next[kind] = start
            start += length
        }
        let firstByte = table + Int(header.streamCount) * StreamRecord.byteCount
        guard storedBytes <= section.count - firstByte, (storedBytes == 0) == (total == 0) else {
            throw .damaged("a section has a shared frame of \(storedBytes) bytes for \(total) shared ones")
        }
        let raw = scratch.bytes(.shared, total)
        bytes = UnsafeRawBufferPointer(raw)
        guard total > 0 else { return }
        let frame = UnsafeRawBufferPointer(rebasing: section[(section.count - storedBytes)...])
        try scratch.sharedDecompressor().decompress(frame, encoding: .zstd, into: raw)
    }

    /// The bytes of the next stream of a kind, and what they take of the frame.
    func take(_ kind: StreamKind, byteCount: Int) -> (bytes: UnsafeRawBufferPointer, storedBytes: Int) {
        let start = Int(next[Int(kind.rawValue)])
        next[Int(kind.rawValue)] += UInt32(byteCount)
        // Taken as one running sum, the parts add up to the whole.
        let (from, to) = (start * storedBytes, (start + byteCount) * storedBytes)
        let share = bytes.isEmpty ? 0 : to / bytes.count - from / bytes.count
        return (UnsafeRawBufferPointer(rebasing: bytes[start..<start + byteCount]), share)
    }
}
