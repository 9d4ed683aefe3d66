import KVCodec
import LMDB

/// The volumes' images as a repair reads them: also those of volumes that no record knows.
final class ImageSource {
    /// An image that no sound node refers to, as it says itself. Only its header and prologue have been looked at.
    struct Image {
        var hash: Digest
        var parent: Digest
        var fingerprint: Digest
        var firstToken: Int
        var tokenCount: Int
        var place: VolumeSet.Location
        var encoding: EncodingRecord
    }

    let folder: String
    /// The store's own record, as far as it is known.
    let store: StoreRecord
    /// Opens volumes that a store has records of; nil where there is no store.
    private let opened: Store?
    private let keys: KeyRing
    private var open: [UInt64: Volume] = [:]

    init(folder: String, store: StoreRecord, of opened: Store?, keys: KeyRing) {
        self.folder = folder + "/" + VolumeSet.folderName
        self.store = store
        self.opened = opened
        self.keys = keys
    }

    /// The volumes whose files are there, by rising id.
    func ids() throws -> [UInt64] { try Platform.list(folder).compactMap(VolumeSet.id(ofFile:)).sorted() }

    func path(of id: UInt64) -> String { folder + "/" + VolumeSet.fileName(of: id) }

    /// - Throws: where the file is gone, or is no volume of this store.
    func volume(_ id: UInt64) throws -> Volume {
        if let known = open[id] { return known }
        if let known = try? opened?.volumes.volume(id) { return known }
        try Platform.refuseLink(path(of: id))
        guard Platform.fileSize(path(of: id)) ?? 0 > 0 else {
            throw StoreError(.pageUnavailable, "volume \(VolumeSet.fileName(of: id)) is gone")
        }
        let volume = try StoreError.translating {
            try Volume(
                id: id, path: path(of: id), storeID: store.storeId, bytesMax: Int(clamping: store.volumeBytesMax), mode: .shared)
        }
        open[id] = volume
        return volume
    }

    /// Sets the volumes that cannot be read aside, so that nobody takes them for dead ones and removes them.
    func keepDamaged(besides readable: Set<UInt64>) throws {
        for id in try ids() where !readable.contains(id) && Platform.fileSize(path(of: id)) ?? 0 > 0 {
            guard let lock = try FileLock(path: path(of: id)) else { continue }
            try Platform.rename(path(of: id), to: IndexFiles.damagedName(path(of: id)))
            try Platform.remove(path(of: id) + "-lock")
            withExtendedLifetime(lock) {}
        }
    }

    /// - Throws: where the volume is out of reach, which may pass: to do without its pages would lose them.
    func isReadable(_ id: UInt64) throws -> Bool {
        do {
            _ = try volume(id)
            return true
        } catch let error as StoreError where !StoreError.isDamage(error) {
            throw StoreError(
                error.code,
                "\(error); nothing was repaired, for its pages would be dropped: if it stays so, move the file away, and repair again"
            )
        } catch {
            return false
        }
    }

    /// Looks at all images that are not at `referred` places.
    func images(besides referred: Set<VolumeSet.Location>, _ body: (Image) throws -> Void) throws {
        for id in try ids() {
            guard let volume = try? volume(id) else { continue }
            var pages: [UInt64] = []
            try? volume.forEachPage { page, _ in
                if !referred.contains(VolumeSet.Location(volume: id, page: page)) { pages.append(page) }
            }
            for page in pages {
                let place = VolumeSet.Location(volume: id, page: page)
                if let image = try? withStored(place, readsAhead: false, { Self.describe($0, at: place) }) { try body(image) }
            }
        }
    }

    /// Lends a page image that can be parsed; nil when there is none.
    func withImage<R>(_ place: VolumeSet.Location, _ body: (PageImage) throws -> R) throws -> R? {
        try withStored(place) { try $0.withWhole(body) }
    }

    private func withStored<R>(
        _ place: VolumeSet.Location, readsAhead: Bool = true, _ body: (StoredImage) throws -> R
    ) throws -> R? {
        try StoreError.translating {
            try volume(place.volume).withImage(place.page, readsAhead: readsAhead) {
                try body(StoredImage($0, keys: keys, bringIn: true))
            }
        }
    }

    private static func describe(_ stored: StoredImage, at place: VolumeSet.Location) -> Image {
        let image = stored.image
        let first = image.layers.map { $0?.tokens.lowerBound ?? image.tokenCount }.max() ?? 0
        let error = image.meanError
        let isInherited = image.profile?.isExact == true && (error.key > 0 || error.value > 0)
        return Image(
            hash: image.identity.chainHash, parent: image.identity.parentHash, fingerprint: image.identity.modelFingerprint,
            firstToken: image.identity.firstToken, tokenCount: image.tokenCount, place: place,
            encoding: EncodingRecord(
                volumeId: place.volume, pageId: place.page, imageBytes: UInt32(clamping: stored.byteCount),
                profileId: image.profileID, flags: isInherited ? EncodingRecord.inheritedFlag : 0, keyError: error.key,
                valueError: error.value, completeFrom: UInt32(first), keyEpoch: stored.keyEpoch,
                createdSeconds: Platform.unixSeconds()))
    }
}
