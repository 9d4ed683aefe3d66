import KVCodec
import LMDB

/// A volume being emptied: what lives in it is copied to where this process appends, byte for byte, and the volume then removed.
///
/// A batch's images are on the disk before one transaction of the index moves their nodes to them, so that at any moment every node
/// lies somewhere whole. Nothing about it is written down: whoever goes on finds what was copied dead, and passes it by.
struct Evacuation {
    private struct LiveImage: PageBytes {
        var hash: Digest
        var page: UInt64
        /// In the volume's memory map.
        var bytes: UnsafeRawBufferPointer
        /// In place of `bytes`, where it was sealed with a key that is not in effect any more.
        var resealed: (bytes: [UInt8], tenant: UInt32, epoch: UInt32)?

        var count: Int { resealed?.bytes.count ?? bytes.count }
        func copy(to destination: UnsafeMutableRawBufferPointer) {
            if let resealed { resealed.bytes.copy(to: destination) } else { destination.copyMemory(from: bytes) }
        }
    }

    let id: UInt64
    private let store: Store
    /// Nobody else appends to the volume, publishes what lies in it, or removes it.
    private let lock: FileLock
    /// Nothing lives in the pages up to this one.
    private(set) var position: UInt64
    private(set) var isAtEnd = false
    /// Pages found damaged. They count as absent from then on.
    private(set) var damagedPages = 0
    private(set) var copiedPages = 0

    private static let batchPagesMax = 64
    /// Images looked at for one batch, live or not.
    private static let batchLooksMax = 2048

    /// - Parameter position: where an earlier one stopped.
    /// - Returns: nil for a volume that is in use by another process, or gone.
    init?(_ id: UInt64, of store: Store, from position: UInt64 = 0) throws {
        guard let lock = try StoreError.translating({ try store.volumes.retire(id) }) else { return nil }
        self.id = id
        self.store = store
        self.lock = lock
        self.position = position
    }

    /// Copies the next live images: at least one, and no more than `bytesMax`, unless there is none left.
    ///
    /// - Returns: the bytes copied.
    /// - Throws: `StoreError.pageUnavailable` or `.damaged` for a volume that cannot be read.
    mutating func copyBatch(bytesMax: Int) throws -> Int {
        let volume = try StoreError.translating { try store.volumes.volume(id) }
        var batch: [LiveImage] = []
        var bytes = 0
        var looks = 0
        var last = position
        var isAtEnd = true
        try StoreError.translating {
            try volume.readImages(after: position) { page, image in
                let hash = try liveHash(of: image, at: page)
                let isFull = batch.count == Self.batchPagesMax || (!batch.isEmpty && bytes + image.count > bytesMax)
                guard looks < Self.batchLooksMax, hash == nil || !isFull else {
                    isAtEnd = false
                    return false
                }
                if let hash {
                    batch.append(LiveImage(hash: hash, page: page, bytes: image, resealed: try resealed(image)))
                    bytes += image.count
                }
                looks += 1
                last = page
                return true
            } then: {
                try copy(batch)
            }
        }
        copiedPages += batch.count
        position = last
        self.isAtEnd = isAtEnd
        return bytes
    }

    /// Like `copyBatch`; nil when the volume cannot be read. It then stays as it is.
    mutating func copyIfReadable(bytesMax: Int) throws -> Int? {
        do {
            return try copyBatch(bytesMax: bytesMax)
        } catch let error as StoreError where error.code == .pageUnavailable || error.code == .damaged {
            return nil
        }
    }

    /// The chain hash of the node that an image belongs to; nil for an image that nothing refers to, or that is damaged.
    private func liveHash(of image: UnsafeRawBufferPointer, at page: UInt64) throws -> Digest? {
        guard let hash = try StoredImage.chainHash(of: image) else { return nil }
        let isLive = try store.read { transaction in
            try store.index.nodes.withValue(hash, in: transaction) { bytes in
                let node = try NodeView(bytes)
                return (0..<node.encodingCount).map { node.encoding($0) }.contains {
                    $0.lies(at: place(page)) && !$0.isQuarantined && Int($0.imageBytes) == image.count
                }
            }
        }
        return isLive == true && Self.isSound(image) ? hash : nil
    }

    private func place(_ page: UInt64) -> VolumeSet.Location { VolumeSet.Location(volume: id, page: page) }

    private func copy(_ batch: [LiveImage]) throws {
        if batch.isEmpty { return }
        let locations = try store.volumes.append(batch, replacesOthers: true)
        defer { store.volumes.settle(locations) }
        try store.write { transaction in
            for (image, location) in zip(batch, locations) {
                // what was sealed anew must be readable with the tenant's key as it is now
                if let resealed = image.resealed {
                    let isInEffect = try store.index.isSealedInEffect(resealed.epoch, of: resealed.tenant, in: transaction)
                    // its tenant was given another key meanwhile: it stays where it is, for the next time
                    guard isInEffect else { continue }
                }
                _ = try store.index.relocate(
                    image.hash, from: place(image.page), to: location, keyEpoch: image.resealed?.epoch, in: transaction)
            }
            try store.index.count(copiedBytes: batch.reduce(0) { $0 + $1.count }, in: transaction)
        }
    }

    /// Removes the volume, once the end of it is reached. What still lies in it is damaged or was quarantined, and is dropped; nothing is
    /// dropped that can be read.
    ///
    /// - Returns: the bytes of its files; nil when it has to stay.
    mutating func finish() throws -> Int? {
        let store = store
        let remove = { [id, lock] in
            try StoreError.translating { try store.volumes.removeIfDead(id, holding: lock, isCompacted: true) }
        }
        if let bytes = try remove() { return bytes }
        let left = try store.read { try store.index.encodings(inVolume: id, in: $0) }.filter {
            try !isWhole($0.encoding, of: $0.hash)
        }
        try store.write { transaction in
            for (hash, encoding) in left { try store.index.dropEncoding(hash, at: encoding.location, in: transaction) }
        }
        damagedPages += left.count { !$0.encoding.isQuarantined }
        return try remove()
    }

    /// Whether an encoding can be read, so that it must not be dropped.
    private func isWhole(_ encoding: EncodingRecord, of hash: Digest) throws -> Bool {
        if encoding.isQuarantined { return false }
        return try StoreError.translating {
            try store.volumes.volume(id).withImage(encoding.pageId) { bytes in
                guard try StoredImage.chainHash(of: bytes) == hash else { return false }
                return bytes.count == Int(encoding.imageBytes) && Self.isSound(bytes)
            } ?? false
        }
    }

    /// The image sealed with the key in effect; nil where it is already, is in the clear, or its tenant's key was not given.
    private func resealed(_ image: UnsafeRawBufferPointer) throws -> (bytes: [UInt8], tenant: UInt32, epoch: UInt32)? {
        guard SealedImage.isSealed(image) else { return nil }
        let sealed = try SealedImage(image)
        guard let keys = store.index.keyRing.keys(of: sealed.header.tenantId), let old = keys.epoch(sealed.header.keyEpoch),
            old.number != keys.current.number
        else { return nil }
        let bytes = try SealedImage.seal(try sealed.openAll(with: old), of: keys.tenant, with: keys.current)
        return (bytes, keys.tenant, keys.current.number)
    }

    private static func isSound(_ image: UnsafeRawBufferPointer) -> Bool {
        do {
            try StoredImage.verifyChecksum(of: image)
            return true
        } catch {
            return false
        }
    }
}
