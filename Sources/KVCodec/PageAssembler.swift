/// Puts a page image together: header, prologue, sections.
struct PageAssembler {
    let page: PageInput
    let profile: Profile
    let classes: TokenClasses
    let layers: [EncodedLayer?]

    func assemble() throws(CodecError) -> [UInt8] {
        let compressor = try Compressor()
        let rotaries = rotaryTables()
        var image = [UInt8](repeating: 0, count: PageHeader.byteCount)
        appendIdentity(to: &image, rotaries: rotaries, compressor: compressor)
        image.pad(to: 8)
        let prologueBytes = image.count + layers.count * SectionEntry.byteCount
        var offset = prologueBytes
        for (index, layer) in layers.enumerated() {
            image.append(entry(index, layer, rotaries: rotaries, end: &offset))
        }
        guard offset <= Int(UInt32.max) else { throw .invalid("a page of \(offset) bytes; use fewer tokens per page") }
        image.reserveCapacity(offset)
        for case let layer? in layers {
            image.pad(to: PageFormat.sectionAlignment)
            image.append(contentsOf: layer.section)
        }
        try seal(&image, prologueBytes: prologueBytes, rotaryCount: rotaries.count)
        return image
    }

    /// The distinct rotary embeddings of the layers, in the order of their first use.
    private func rotaryTables() -> [RotaryParameters] {
        var tables: [RotaryParameters] = []
        for case let rotary? in page.layers.map({ $0?.geometry.rotary }) where !tables.contains(rotary) {
            tables.append(rotary)
        }
        return tables
    }

    private func appendIdentity(to image: inout [UInt8], rotaries: [RotaryParameters], compressor: Compressor) {
        let identity = page.identity
        var classBytes: [UInt8] = []
        var classEncoding: UInt8 = 0
        if classes.bytes.contains(where: { $0 != TokenClass.base.rawValue }) {
            classEncoding = classes.bytes.withUnsafeBytes { compressor.append($0, to: &classBytes).rawValue }
        }
        var positionBytes: [UInt8] = []
        var positionEncoding: UInt8 = 0
        if let positions = page.positions {
            let raw = PositionCoding.bytes(of: positions)
            positionEncoding = raw.withUnsafeBytes { compressor.append($0, to: &positionBytes).rawValue }
        }
        image.append(
            PageIdentityRecord(
                modelFingerprint: identity.modelFingerprint, chainHash: identity.chainHash, parentHash: identity.parentHash,
                tokenBytes: UInt32(identity.tokens.count), classBytes: UInt32(classBytes.count),
                positionBytes: UInt32(positionBytes.count), classEncoding: classEncoding, positionEncoding: positionEncoding))
        for rotary in rotaries {
            image.append(
                PageRotaryRecord(
                    pairCount: UInt16(rotary.inverseFrequencies.count), pairing: rotary.pairing.rawValue,
                    sectionCount: UInt8(rotary.sections?.count ?? 0)))
            for section in rotary.sections ?? [] { image.append(littleEndian: UInt32(section)) }
            for frequency in rotary.inverseFrequencies { image.append(littleEndian: frequency) }
        }
        image.append(contentsOf: identity.tokens)
        image.append(contentsOf: classBytes)
        image.append(contentsOf: positionBytes)
    }

    /// The section table entry of a layer whose section comes after byte `end`, which moves on past it.
    private func entry(_ index: Int, _ layer: EncodedLayer?, rotaries: [RotaryParameters], end: inout Int) -> SectionEntry {
        guard let layer, let input = page.layers[index] else {
            return SectionEntry(
                sectionOffset: 0, sectionBytes: 0, firstToken: UInt32(page.tokenCount), checksum: 0, keyError: 0, valueError: 0,
                keyValueHeads: 0, keyDim: 0, valueDim: 0, rotaryIndex: PageFormat.noRotary, slidingWindow: 0)
        }
        let start = end.roundedUp(to: PageFormat.sectionAlignment)
        end = start + layer.section.count
        let rotaryIndex = input.geometry.rotary.flatMap { rotaries.firstIndex(of: $0) }.map { UInt16($0) }
        return SectionEntry(
            sectionOffset: UInt64(start), sectionBytes: UInt32(layer.section.count), firstToken: UInt32(input.firstToken),
            checksum: layer.section.withUnsafeBytes { Checksum.of($0) }, keyError: layer.error.key, valueError: layer.error.value,
            keyValueHeads: UInt16(input.geometry.keyValueHeads), keyDim: UInt16(input.geometry.keyDim),
            valueDim: UInt16(input.geometry.valueDim), rotaryIndex: rotaryIndex ?? PageFormat.noRotary,
            slidingWindow: UInt32(input.geometry.slidingWindow ?? 0))
    }

    /// Writes the header: first without checksums, then with the prologue's, then with the image's.
    private func seal(_ image: inout [UInt8], prologueBytes: Int, rotaryCount: Int) throws(CodecError) {
        var header = PageHeader(
            magic: PageFormat.magic, formatVersion: PageFormat.version, codecId: PageFormat.codecID,
            codecVersion: PageFormat.codecVersion, profileId: profile.id, elementType: page.elementType.rawValue,
            positionStreams: UInt8(page.positions?.count ?? 0), layerCount: UInt16(layers.count),
            tokenCount: UInt32(page.tokenCount), firstToken: UInt64(page.identity.firstToken), imageBytes: UInt64(image.count),
            prologueBytes: UInt32(prologueBytes), rotaryCount: UInt16(rotaryCount), prologueChecksum: 0, imageChecksum: 0)
        image.withUnsafeMutableBytes { header.store(at: 0, in: $0) }
        header.prologueChecksum = try image.checksum(0..<48, then: PageHeader.byteCount..<prologueBytes)
        image.withUnsafeMutableBytes { header.store(at: 0, in: $0) }
        header.imageChecksum = try image.checksum(0..<56, then: PageHeader.byteCount..<image.count)
        image.withUnsafeMutableBytes { header.store(at: 0, in: $0) }
    }
}

/// Explicit positions as bytes: per stream, the differences between neighbours (the first against 0) as zigzag u32, in byte
/// planes, so that runs of consecutive ids become runs of equal bytes.
enum PositionCoding {
    static func bytes(of streams: [[Int32]]) -> [UInt8] {
        var planes: [UInt8] = []
        for stream in streams {
            var previous: UInt32 = 0
            let zigzag = stream.map { position in
                let difference = UInt32(bitPattern: position) &- previous
                previous = UInt32(bitPattern: position)
                return difference << 1 ^ (difference >> 31 == 1 ? UInt32.max : 0)
            }
            for plane in 0..<4 { planes.append(contentsOf: zigzag.map { UInt8(truncatingIfNeeded: $0 >> (8 * plane)) }) }
        }
        return planes
    }

    /// Undoes `bytes(of:)`; `bytes` holds four planes of `tokenCount` bytes per stream.
    static func streams(_ bytes: [UInt8], streamCount: Int, tokenCount: Int) -> [[Int32]] {
        (0..<streamCount).map { stream in
            var previous: UInt32 = 0
            return (0..<tokenCount).map { token in
                let start = stream * 4 * tokenCount + token
                let zigzag = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[start + $1 * tokenCount]) << (8 * $1) }
                previous &+= zigzag >> 1 ^ (zigzag & 1 == 1 ? UInt32.max : 0)
                return Int32(bitPattern: previous)
            }
        }
    }
}

extension Int {
    func roundedUp(to multiple: Int) -> Int { (self + multiple - 1) / multiple * multiple }
}

extension [UInt8] {
    mutating func pad(to multiple: Int) {
        append(contentsOf: repeatElement(0, count: count.roundedUp(to: multiple) - count))
    }

    mutating func append<Value: LittleEndianStorable>(littleEndian value: Value) {
        let start = count
        append(contentsOf: repeatElement(0, count: MemoryLayout<Value>.size))
        withUnsafeMutableBytes { value.store(to: $0, at: start) }
    }

    func checksum(_ first: Range<Int>, then second: Range<Int>) throws(CodecError) -> UInt64 {
        let result = withUnsafeBytes { bytes -> Result<UInt64, CodecError> in
            do throws(CodecError) { return .success(try Checksum.of(bytes, first, then: second)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
