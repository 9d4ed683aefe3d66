import KVCodec

/// A page image, sealed: what a volume holds of an encrypted tenant's page (schema/FORMAT.md, "Sealed values and page images").
///
/// Each layer is sealed by itself, so that one can be read alone. The ciphertext of a stretch lies where the stretch lies in the image, behind
/// header and chunk table; both have checksums, so that damage is found without the key.
struct SealedImage: @unchecked Sendable {
    let header: SealedImageHeader
    private var bytes: UnsafeRawBufferPointer
    private let chunks: [SealedChunk]
    /// Where each chunk begins in the image, and where the last ends.
    private let bounds: [Int]

    private static let magic: UInt64 = 0x0A47_5053_564B_5289
    private static let formatVersion: UInt16 = 1
    private static let algorithm: UInt16 = 1
    private static let authenticatedBytes = 88
    private static let chunksMax = 1 + 1024

    static func isSealed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count >= 8 && bytes.loadLittleEndian(at: 0, as: UInt64.self) == magic
    }

    /// Length of header and chunk table as the header says it, at most that of the bytes; 0 for no sealed image.
    static func tableByteCount(of bytes: UnsafeRawBufferPointer) -> Int {
        guard let header = SealedImageHeader(at: 0, of: bytes), header.magic == magic, header.chunkCount <= chunksMax else {
            return 0
        }
        return min(bytes.count, SealedImageHeader.byteCount + Int(header.chunkCount) * SealedChunk.byteCount)
    }

    // MARK: - Sealing

    /// Seals an image that was just encoded, or that was opened.
    static func seal(_ image: [UInt8], of tenant: UInt32, with epoch: TenantKeys.Epoch) throws -> [UInt8] {
        try image.withUnsafeBytes { plain in
            let parsed = try PageImage(parsing: plain)
            let bounds = [0] + parsed.layers.compactMap { $0?.byteRange.lowerBound } + [plain.count]
            let count = bounds.count - 1
            let nonce = Seal.Nonce.random()
            var header = SealedImageHeader(
                magic: magic, formatVersion: formatVersion, algorithm: algorithm, keyEpoch: epoch.number, tenantId: tenant,
                chunkCount: UInt32(count), imageBytes: UInt64(plain.count), chainHash: parsed.identity.chainHash, nonceA: nonce.a,
                nonceB: nonce.b, checksum: 0)
            var head: [UInt8] = []
            head.append(header)
            let tableBytes = SealedImageHeader.byteCount + count * SealedChunk.byteCount
            var sealed = [UInt8](repeating: 0, count: tableBytes + plain.count)
            var table: [UInt8] = []
            sealed.withUnsafeMutableBytes { sealed in
                for chunk in 0..<count {
                    let range = bounds[chunk]..<bounds[chunk + 1]
                    let target = UnsafeMutableRawBufferPointer(
                        rebasing: sealed[tableBytes + range.lowerBound..<tableBytes + range.upperBound])
                    let tag = head.prefix(authenticatedBytes).withUnsafeBytes { additional in
                        epoch.images.seal(
                            UnsafeRawBufferPointer(rebasing: plain[range]), into: target, additional: additional,
                            nonce: Seal.Nonce(a: nonce.a, b: nonce.b, c: UInt64(chunk)))
                    }
                    table.append(
                        SealedChunk(
                            byteCount: UInt64(range.count), checksum: Checksum.of(UnsafeRawBufferPointer(target)), tagA: tag.a,
                            tagB: tag.b))
                }
            }
            header.checksum = (head.prefix(authenticatedBytes) + table).withUnsafeBytes { Checksum.of($0) }
            head = []
            head.append(header)
            sealed.replaceSubrange(..<tableBytes, with: head + table)
            return sealed
        }
    }

    // MARK: - Reading

    /// Reads header and table; touches nothing else.
    ///
    /// - Throws: `CodecError` with `.notAPage`, `.newerFormat` or `.damaged`.
    init(_ bytes: UnsafeRawBufferPointer) throws(CodecError) {
        guard let header = SealedImageHeader(at: 0, of: bytes), header.magic == Self.magic else {
            throw CodecError(.notAPage, "these bytes are no sealed page image")
        }
        guard header.formatVersion == Self.formatVersion, header.algorithm == Self.algorithm else {
            throw CodecError(.newerFormat, "the page was sealed by a newer ReelKV: upgrade")
        }
        let count = Int(header.chunkCount)
        let tableBytes = SealedImageHeader.byteCount + count * SealedChunk.byteCount
        guard (1...Self.chunksMax).contains(count), tableBytes <= bytes.count,
            header.imageBytes == UInt64(bytes.count - tableBytes),
            try Checksum.of(bytes, 0..<Self.authenticatedBytes, then: SealedImageHeader.byteCount..<tableBytes) == header.checksum
        else { throw CodecError(.damaged, "the sealed page's header does not match its checksum") }
        var chunks: [SealedChunk] = []
        var bounds = [0]
        for index in 0..<count {
            guard let chunk = SealedChunk(at: SealedImageHeader.byteCount + index * SealedChunk.byteCount, of: bytes),
                chunk.byteCount <= header.imageBytes - UInt64(bounds[index])
            else { throw CodecError(.damaged, "a sealed page's chunks do not fit") }
            chunks.append(chunk)
            bounds.append(bounds[index] + Int(chunk.byteCount))
        }
        guard bounds[count] == Int(header.imageBytes) else { throw CodecError(.damaged, "a sealed page's chunks do not fit") }
        self.header = header
        self.bytes = bytes
        self.chunks = chunks
        self.bounds = bounds
    }

    /// The same image where it lies now; nil where something else does.
    func moved(to other: UnsafeRawBufferPointer) -> SealedImage? {
        guard other.count == bytes.count, SealedImageHeader(at: 0, of: other) == header else { return nil }
        var moved = self
        moved.bytes = other
        return moved
    }

    /// Length of the sealed image.
    var byteCount: Int { bytes.count }

    var chainHash: Digest { header.chainHash }

    /// The ciphertext of header and prologue.
    var prologueBytes: UnsafeRawBufferPointer { ciphertext(0..<bounds[1]) }

    var prologueByteCount: Int { bounds[1] }

    /// The ciphertext of a stretch of the image.
    func ciphertext(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        let start = bytes.count - Int(header.imageBytes)
        return UnsafeRawBufferPointer(rebasing: bytes[start + range.lowerBound..<start + range.upperBound])
    }

    /// Checks the checksums of all chunks: needs no key, and touches the whole image.
    func verifyChecksums() throws(CodecError) {
        for (index, chunk) in chunks.enumerated() {
            guard Checksum.of(ciphertext(bounds[index]..<bounds[index + 1])) == chunk.checksum else {
                throw CodecError(.damaged, "a sealed page does not match its checksum")
            }
        }
    }

    // MARK: - Opening

    /// Opens header and prologue.
    func openPrologue(with epoch: TenantKeys.Epoch) throws(CodecError) -> [UInt8] {
        var plain = [UInt8](repeating: 0, count: bounds[1])
        guard plain.withUnsafeMutableBytes({ open(0, into: $0, with: epoch) }) else { throw Self.wrongTag }
        return plain
    }

    /// Opens the chunk that a layer's section begins, of which `section` says where it lies in the image.
    ///
    /// - Parameter memory: gives as many bytes as it is asked for.
    /// - Returns: the section, in that memory.
    func openSection(
        _ section: Range<Int>, with epoch: TenantKeys.Epoch, in memory: (Int) -> UnsafeMutableRawBufferPointer
    ) throws(CodecError) -> UnsafeRawBufferPointer {
        var (low, high) = (1, chunks.count)
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] < section.lowerBound { low = middle + 1 } else { high = middle }
        }
        guard low < chunks.count, bounds[low] == section.lowerBound, section.upperBound <= bounds[low + 1] else {
            throw CodecError(.damaged, "a sealed page's chunks are not its layers")
        }
        let plain = memory(bounds[low + 1] - bounds[low])
        guard open(low, into: plain, with: epoch) else { throw Self.wrongTag }
        return UnsafeRawBufferPointer(rebasing: plain[..<section.count])
    }

    /// Opens all of it.
    func openAll(with epoch: TenantKeys.Epoch) throws(CodecError) -> [UInt8] {
        var plain = [UInt8](repeating: 0, count: Int(header.imageBytes))
        let isOpen = plain.withUnsafeMutableBytes { plain in
            chunks.indices.allSatisfy {
                open($0, into: UnsafeMutableRawBufferPointer(rebasing: plain[bounds[$0]..<bounds[$0 + 1]]), with: epoch)
            }
        }
        guard isOpen else { throw Self.wrongTag }
        return plain
    }

    private static let wrongTag = CodecError(.damaged, "a sealed page was changed: its tag is not right")

    private func open(_ chunk: Int, into plain: UnsafeMutableRawBufferPointer, with epoch: TenantKeys.Epoch) -> Bool {
        let entry = chunks[chunk]
        return epoch.images.open(
            ciphertext(bounds[chunk]..<bounds[chunk + 1]), tag: Seal.Tag(a: entry.tagA, b: entry.tagB), into: plain,
            additional: UnsafeRawBufferPointer(rebasing: bytes[..<Self.authenticatedBytes]),
            nonce: Seal.Nonce(a: header.nonceA, b: header.nonceB, c: UInt64(chunk)))
    }
}
