import KVCodec
import LMDB

/// A page's image as a volume holds it: in the clear, or sealed and opened as it is read.
struct StoredImage: Sendable {
    /// What header and prologue say. Sections are read by `decode` only, as of a sealed image they are not there.
    let image: PageImage
    /// The image where it lies, if it is sealed, and what opens it.
    fileprivate let sealed: (image: SealedImage, epoch: TenantKeys.Epoch)?

    /// Parses an image that is all in memory, or that `bringIn` brings in as far as it is read here.
    ///
    /// - Parameter known: the same image as it was parsed before, wherever it was then.
    init(_ bytes: UnsafeRawBufferPointer, keys: KeyRing, known: StoredImage? = nil, bringIn: Bool = false) throws {
        if SealedImage.isSealed(bytes) {
            if let known, let before = known.sealed, let same = before.image.moved(to: bytes) {
                self.init(image: known.image, sealed: (same, before.epoch))
                return
            }
            if bringIn {
                try Environment.bringIn(UnsafeRawBufferPointer(rebasing: bytes.prefix(SealedImage.tableByteCount(of: bytes))))
            }
            let sealed = try SealedImage(bytes)
            let epoch = try keys.epoch(of: sealed)
            if bringIn { try Environment.bringIn(sealed.prologueBytes) }
            self.init(image: try sealed.parsedPrologue(with: epoch), sealed: (sealed, epoch))
        } else {
            if let known, known.sealed == nil {
                self.init(image: try PageImage(parsing: bytes, known: known.image), sealed: nil)
                return
            }
            if bringIn {
                try Environment.bringIn(UnsafeRawBufferPointer(rebasing: bytes.prefix(Volume.prologueBytes)))
                try Environment.bringIn(UnsafeRawBufferPointer(rebasing: bytes.prefix(PageImage.prologueByteCount(of: bytes))))
            }
            self.init(image: try PageImage(parsing: bytes), sealed: nil)
        }
    }

    private init(image: PageImage, sealed: (image: SealedImage, epoch: TenantKeys.Epoch)?) {
        self.image = image
        self.sealed = sealed
    }

    /// Length of the image as it is stored.
    var byteCount: Int { sealed?.image.byteCount ?? image.byteCount }

    var keyEpoch: UInt32 { sealed?.epoch.number ?? 0 }

    /// The bytes that decoding some layers reads, where they lie.
    func bytes(ofLayers wanted: Range<Int>) -> UnsafeRawBufferPointer {
        sealed?.image.ciphertext(image.byteRange(ofLayers: wanted)) ?? image.bytes(ofLayers: wanted)
    }

    /// Like `PageImage.decode`.
    func decode(
        layer: Int, tokens: Range<Int>, key: MutableTensorView?, value: MutableTensorView?, scratch: DecodeScratch
    ) throws(CodecError) {
        guard let sealed, image.layers.indices.contains(layer), let section = image.layers[layer]?.byteRange else {
            return try image.decode(layer: layer, tokens: tokens, key: key, value: value, scratch: scratch)
        }
        let opened = try sealed.image.openSection(section, with: sealed.epoch) { scratch.section(byteCount: $0) }
        // the tag has vouched for it
        try image.decode(
            layer: layer, tokens: tokens, key: key, value: value, scratch: scratch, section: opened, verifying: false)
    }

    /// Lends the whole image in the clear: of a sealed one, opened in memory.
    func withWhole<R>(_ body: (PageImage) throws -> R) throws -> R {
        guard let sealed else { return try body(image) }
        return try sealed.image.openAll(with: sealed.epoch).withUnsafeBytes { try body(try PageImage(parsing: $0)) }
    }

    // MARK: - Without the key

    /// The page that an image says it is of; nil for bytes that are no image.
    ///
    /// - Throws: `StoreError.newerFormat`.
    static func chainHash(of bytes: UnsafeRawBufferPointer) throws -> Digest? {
        do {
            return try SealedImage.isSealed(bytes)
                ? SealedImage(bytes).chainHash : PageImage(parsing: bytes).identity.chainHash
        } catch {
            if error.code == .newerFormat { throw StoreError(.newerFormat, "\(error)") }
            return nil
        }
    }

    /// Checks the checksums of all of an image.
    static func verifyChecksum(of bytes: UnsafeRawBufferPointer) throws(CodecError) {
        if SealedImage.isSealed(bytes) {
            try SealedImage(bytes).verifyChecksums()
        } else {
            try PageImage(parsing: bytes).verifyChecksum()
        }
    }

    /// The epoch of the key that an image is sealed with; 0 for one in the clear.
    static func keyEpoch(of bytes: UnsafeRawBufferPointer) -> UInt32 {
        guard SealedImage.isSealed(bytes), let header = SealedImageHeader(at: 0, of: bytes) else { return 0 }
        return header.keyEpoch
    }
}

extension SealedImage {
    /// Opens and parses header and prologue. The image's sections are not there.
    func parsedPrologue(with epoch: TenantKeys.Epoch) throws(CodecError) -> PageImage {
        let prologue = try openPrologue(with: epoch)
        var result: Result<PageImage, CodecError>?
        prologue.withUnsafeBytes { bytes in
            do throws(CodecError) {
                result = .success(try PageImage(parsingPrologue: bytes, imageByteCount: Int(header.imageBytes)))
            } catch {
                result = .failure(error)
            }
        }
        let image = try result!.get()
        guard image.identity.chainHash == chainHash else { throw CodecError(.damaged, "a sealed page is another than it says") }
        return image
    }
}

extension KeyRing {
    /// The data key that opens an image.
    ///
    /// - Throws: `StoreError.keyRequired`.
    func epoch(of image: SealedImage) throws -> TenantKeys.Epoch {
        guard let keys = keys(of: image.header.tenantId) else { throw Index.noKey("tenant \(image.header.tenantId)") }
        guard let epoch = keys.epoch(image.header.keyEpoch) else { throw Index.newKey(keys.name) }
        return epoch
    }
}
