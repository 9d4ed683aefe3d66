/// Reads a page's prologue: identity, rotary tables, classes, positions, section table. Checks every size before it is used.
struct PrologueReader {
    struct Contents {
        var elementType: ElementType
        var identity: PageIdentity
        var classes: TokenClasses
        var positions: PagePositions
        var layers: [PageImage.Layer?]
    }

    private let bytes: UnsafeRawBufferPointer
    private let header: PageHeader
    private let end: Int
    private let imageBytes: Int
    private var offset = PageHeader.byteCount

    init(_ bytes: UnsafeRawBufferPointer, header: PageHeader) throws(CodecError) {
        self.bytes = bytes
        self.header = header
        self.end = Int(header.prologueBytes)
        imageBytes = Int(header.imageBytes)
    }

    mutating func read() throws(CodecError) -> Contents {
        guard let elementType = ElementType(rawValue: header.elementType) else {
            throw .damaged("element type \(header.elementType) is unknown")
        }
        guard let record: PageIdentityRecord = next() else { throw .damaged("the prologue is too short for the identity") }
        var rotaries: [RotaryParameters] = []
        for _ in 0..<header.rotaryCount { rotaries.append(try readRotary()) }
        let identity = PageIdentity(
            modelFingerprint: record.modelFingerprint, chainHash: record.chainHash, parentHash: record.parentHash,
            firstToken: Int(header.firstToken), tokens: Array(try take(Int(record.tokenBytes), "tokens")))
        let classes = try readClasses(record)
        let positions = try readPositions(record)
        offset = offset.roundedUp(to: 8)
        var layers: [PageImage.Layer?] = []
        var free = end
        for index in 0..<Int(header.layerCount) {
            guard offset <= end - SectionEntry.byteCount, let entry: SectionEntry = next() else {
                throw .damaged("the prologue is too short for the section table")
            }
            layers.append(try layer(index, entry, rotaries: rotaries, elementType: elementType, free: &free))
        }
        guard offset == end else { throw .damaged("the prologue has \(end) bytes, its contents \(offset)") }
        guard free == imageBytes else { throw .damaged("the page has \(imageBytes) bytes, its sections end at \(free)") }
        return Contents(elementType: elementType, identity: identity, classes: classes, positions: positions, layers: layers)
    }

    private mutating func next<Record: FixedLayoutRecord>() -> Record? {
        guard offset <= end, end - offset >= Record.byteCount else { return nil }
        defer { offset += Record.byteCount }
        return Record(at: offset, of: bytes)
    }

    private mutating func take(_ count: Int, _ what: String) throws(CodecError) -> UnsafeRawBufferPointer {
        guard offset <= end, count <= end - offset else { throw .damaged("the prologue is too short for its \(what)") }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    private mutating func readRotary() throws(CodecError) -> RotaryParameters {
        guard let record: PageRotaryRecord = next(), let pairing = RotaryParameters.Pairing(rawValue: record.pairing) else {
            throw .damaged("a rotary table is cut off or of an unknown kind")
        }
        let sections = try take(4 * Int(record.sectionCount), "rotary sections")
        let frequencies = try take(4 * Int(record.pairCount), "rotary table")
        return RotaryParameters(
            inverseFrequencies: (0..<Int(record.pairCount)).map { frequencies.loadLittleEndian(at: 4 * $0, as: Float.self) },
            pairing: pairing,
            sections: record.sectionCount == 0
                ? nil : (0..<Int(record.sectionCount)).map { Int(sections.loadLittleEndian(at: 4 * $0, as: UInt32.self)) })
    }

    private mutating func readClasses(_ record: PageIdentityRecord) throws(CodecError) -> TokenClasses {
        let stored = try take(Int(record.classBytes), "token classes")
        guard record.classEncoding != 0 else {
            guard stored.isEmpty else { throw .damaged("token classes that should not be there") }
            return TokenClasses(repeating: .base, count: Int(header.tokenCount))
        }
        return try TokenClasses(bytes: try expand(stored, record.classEncoding, byteCount: Int(header.tokenCount)))
    }

    private mutating func readPositions(_ record: PageIdentityRecord) throws(CodecError) -> PagePositions {
        let stored = try take(Int(record.positionBytes), "positions")
        let streams = Int(header.positionStreams)
        guard (record.positionEncoding == 0) == (streams == 0), streams > 0 || stored.isEmpty, streams <= 4 else {
            throw .damaged("positions that do not fit \(streams) streams")
        }
        guard streams > 0 else { return PagePositions(firstPosition: Int(header.firstToken), streams: nil) }
        let tokens = Int(header.tokenCount)
        let raw = try expand(stored, record.positionEncoding, byteCount: 4 * streams * tokens)
        return PagePositions(
            firstPosition: Int(header.firstToken),
            streams: PositionCoding.streams(raw, streamCount: streams, tokenCount: tokens))
    }

    private func expand(_ stored: UnsafeRawBufferPointer, _ encoding: UInt8, byteCount: Int) throws(CodecError) -> [UInt8] {
        guard let encoding = StreamEncoding(rawValue: encoding) else { throw .damaged("encoding \(encoding) is unknown") }
        var raw = [UInt8](repeating: 0, count: byteCount)
        var failure: CodecError?
        raw.withUnsafeMutableBytes { raw in
            do throws(CodecError) {
                try DecompressorPool.decompress(stored, encoding: encoding, into: raw)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return raw
    }

    /// Checks a section table entry; sections lie in order, one after the other, from `free` on.
    private func layer(
        _ index: Int, _ entry: SectionEntry, rotaries: [RotaryParameters], elementType: ElementType, free: inout Int
    ) throws(CodecError) -> PageImage.Layer? {
        if entry.sectionOffset == 0 {
            guard entry.sectionBytes == 0, entry.firstToken == header.tokenCount else {
                throw .damaged("layer \(index) is neither there nor absent")
            }
            return nil
        }
        let start = free.roundedUp(to: PageFormat.sectionAlignment)
        guard entry.sectionOffset == UInt64(start), Int(entry.sectionBytes) <= imageBytes - min(start, imageBytes) else {
            throw .damaged("layer \(index)'s section lies outside its place in the image")
        }
        free = start + Int(entry.sectionBytes)
        guard entry.rotaryIndex == PageFormat.noRotary || Int(entry.rotaryIndex) < rotaries.count else {
            throw .damaged("layer \(index) refers to a rotary table that is not there")
        }
        let geometry = LayerGeometry(
            keyValueHeads: Int(entry.keyValueHeads), keyDim: Int(entry.keyDim), valueDim: Int(entry.valueDim),
            slidingWindow: entry.slidingWindow == 0 ? nil : Int(entry.slidingWindow),
            rotary: entry.rotaryIndex == PageFormat.noRotary ? nil : rotaries[Int(entry.rotaryIndex)])
        do throws(CodecError) { try geometry.check(index: index) } catch { throw .damaged(error.message) }
        let tokenCount = Int(header.tokenCount)
        guard entry.firstToken < header.tokenCount else { throw .damaged("layer \(index) holds no token") }
        let tokens = Int(entry.firstToken)..<tokenCount
        guard geometry.keyValueHeads * tokens.count * max(geometry.keyDim, geometry.valueDim) <= PageInput.elementsMax else {
            throw .damaged("layer \(index) is larger than a page may be")
        }
        return PageImage.Layer(
            geometry: geometry, tokens: tokens, error: LayerError(key: entry.keyError, value: entry.valueError),
            byteRange: start..<free, checksum: entry.checksum)
    }
}

extension PageHeader {
    /// Reads a header and checks what can be checked without the rest. All of the prologue must be there.
    init(checking bytes: UnsafeRawBufferPointer, imageByteCount: Int) throws(CodecError) {
        guard let header = PageHeader(at: 0, of: bytes), header.magic == PageFormat.magic else {
            throw CodecError(.notAPage, "these bytes are no page image")
        }
        guard header.formatVersion == PageFormat.version else {
            throw CodecError(
                .newerFormat, "the page has format version \(header.formatVersion), this reader knows \(PageFormat.version)")
        }
        guard header.codecId == PageFormat.codecID, (1...PageFormat.codecVersion).contains(header.codecVersion) else {
            throw CodecError(
                .newerFormat, "the page was written by codec \(header.codecId) version \(header.codecVersion), unknown here")
        }
        guard header.imageBytes == UInt64(imageByteCount), bytes.count <= imageByteCount else {
            throw .damaged("the page should have \(header.imageBytes) bytes and has \(imageByteCount)")
        }
        guard header.prologueBytes >= PageHeader.byteCount, Int(header.prologueBytes) <= bytes.count,
            header.prologueBytes % 8 == 0
        else { throw .damaged("the page's prologue of \(header.prologueBytes) bytes does not fit") }
        guard (1...UInt32(PageInput.tokenCountMax)).contains(header.tokenCount),
            (1...UInt16(PageInput.layersMax)).contains(header.layerCount), header.rotaryCount <= PageInput.layersMax,
            header.firstToken <= UInt64(Int64.max) - UInt64(PageInput.tokenCountMax)
        else {
            throw .damaged("a page of \(header.tokenCount) tokens from \(header.firstToken) and \(header.layerCount) layers")
        }
        self = header
    }
}
