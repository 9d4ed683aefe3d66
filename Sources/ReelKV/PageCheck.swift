import KVCodec
import LMDB

/// The second half of a verification: what the volumes hold, against what the index says of it.
struct PageCheck {
    struct Damaged: Hashable {
        var hash: Digest
        var location: VolumeSet.Location
    }

    let store: Store
    var index: IndexCheck
    private(set) var damaged: [Damaged] = []
    /// Pages that could not be looked at, because the index does not find their nodes.
    private(set) var skipped = 0
    private var checker = ImageChecker()

    init(_ store: Store, _ index: IndexCheck) {
        self.store = store
        self.index = index
    }

    // MARK: - Volumes

    /// Whether the volumes that pages lie in can be opened, and what in them nothing refers to.
    mutating func checkVolumes() throws {
        let referred = Dictionary(grouping: index.places, by: \.volume).mapValues { Set($0.map(\.page)) }
        for (id, record) in index.volumes.sorted(by: { $0.key < $1.key }) {
            let pages = referred[id] ?? []
            do {
                if record.livePages == 0, !Platform.exists(store.volumes.path(of: id)) { continue }
                let volume = try StoreError.translating { try store.volumes.volume(id) }
                try StoreError.translating {
                    try volume.forEachPage { page, bytes in
                        if pages.contains(page) { return }
                        index.report.orphanPages += 1
                        index.report.orphanBytes += bytes
                    }
                }
            } catch {
                // it may have been removed since the index was read; and one without pages does no harm
                let isStillThere = try store.read { try store.index.volumes.contains(id, in: $0) }
                if isStillThere, !pages.isEmpty { index.problem(.volume, VolumeSet.fileName(of: id), "\(error)") }
            }
        }
    }

    // MARK: - Files

    /// Files that nothing in the store refers to.
    mutating func checkFiles() throws {
        let folder = store.folder
        let current = Index.files.newest(among: try Platform.list(folder))
        for name in try Platform.list(folder) {
            if let message = Self.fault(ofFile: name, current: current) { try leftover(name, message) }
        }
        let volumes = VolumeSet.folderName
        for name in try Platform.list(folder + "/" + volumes) {
            let file = name.hasSuffix("-lock") ? String(name.dropLast(5)) : name
            guard let id = VolumeSet.id(ofFile: file) else {
                let isKept = name.contains(IndexFiles.damagedInfix)
                try leftover(volumes + "/" + name, isKept ? "is a damaged volume that was kept" : "is no volume")
                continue
            }
            // a volume's record is there before its file
            let isKnown = try store.read { try store.index.volumes.contains(id, in: $0) }
            if !isKnown { try leftover(volumes + "/" + name, "is a volume that the index does not know") }
        }
    }

    private static let ownNames: Set<String> = [
        VolumeSet.folderName, LeaseTable.folderName, Identity.fileName, Store.compactionLockName, Store.spaceLockName,
        Store.scrubLockName,
    ]

    private static func fault(ofFile name: String, current: Int?) -> String? {
        if ownNames.contains(name) { return nil }
        if name == Identity.unfinishedName { return "is a copy of the identities that was not completed" }
        if name.contains(IndexFiles.damagedInfix) { return "is a damaged index that was kept: remove it when it is of no use" }
        guard Index.files.owns(name) else { return "does not belong to the store" }
        let generations = current.map { [Index.files.name(of: $0), Index.files.name(of: $0) + "-lock"] } ?? []
        return generations.contains(name) ? nil : "is a former index, or one that was not completed"
    }

    private mutating func leftover(_ path: String, _ message: String) throws {
        guard let bytes = Platform.fileSize(store.folder + "/" + path) else { return }
        index.report.leftovers.append(LeftoverFile(path: path, bytes: bytes, message: message))
    }

    // MARK: - Pages

    mutating func checkPages(decoding: Bool, progress: ((Int, Int) -> Void)?) throws {
        // in the order they lie on the disk
        let places = index.places.sorted { ($0.volume, $0.page) < ($1.volume, $1.page) }
        index.report.pages += index.lostPages
        index.report.quarantined += index.lostPages
        for (done, place) in places.enumerated() {
            progress?(done, places.count)
            index.report.pages += 1
            index.report.bytes += Int(place.imageBytes)
            if place.isQuarantined {
                index.report.quarantined += 1
                continue
            }
            let hash = index.nodes.hash(place.node)
            guard let (finding, location) = checkFollowing(hash, profile: place.profile, decoding: decoding) else { continue }
            index.problem(.page, hash.hex, finding.message)
            if finding.isDamage { damaged.append(Damaged(hash: hash, location: location)) }
        }
        progress?(places.count, places.count)
    }

    /// What is wrong with a page image, and where it lies; nil when nothing is. A page may have been moved, deleted or found damaged since
    /// the index was read: it counts as what it is now.
    private mutating func checkFollowing(
        _ hash: Digest, profile: UInt16, decoding: Bool
    ) -> (finding: Finding, location: VolumeSet.Location)? {
        var found: (finding: Finding, location: VolumeSet.Location)?
        while true {
            guard let node = try? store.read({ try store.index.node(hash, in: $0) }) else {
                skipped += 1
                return nil
            }
            guard let encoding = node.encodings.first(where: { $0.profileId == profile }), !encoding.isQuarantined else {
                return nil
            }
            if let found, found.location == encoding.location { return found }
            guard let finding = fault(of: node, hash, encoding, decoding: decoding) else { return nil }
            found = (finding, encoding.location)
        }
    }

    private mutating func fault(of node: Node, _ hash: Digest, _ encoding: EncodingRecord, decoding: Bool) -> Finding? {
        do {
            let fingerprint = index.models[node.record.modelId]?.spec.fingerprint
            let found: Void? = try store.volumes.volume(encoding.volumeId).withImage(encoding.pageId) { bytes in
                guard bytes.count == Int(encoding.imageBytes) else {
                    throw StoreError(.damaged, "has \(bytes.count) bytes where the index says \(encoding.imageBytes)")
                }
                guard StoredImage.keyEpoch(of: bytes) == encoding.keyEpoch else {
                    throw StoreError(.damaged, "is not sealed as the index says")
                }
                try StoredImage.verifyChecksum(of: bytes)
                guard !index.isLocked(node.record.tenantId), store.index.canOpen(node.record) else {
                    guard try StoredImage.chainHash(of: bytes) == hash else {
                        throw StoreError(.damaged, "is another page's image")
                    }
                    return
                }
                let tokens = try store.index.tokens(of: node)
                try StoredImage(bytes, keys: store.index.keyRing).withWhole { image in
                    try image.verifyAll()
                    guard image.identity.chainHash == hash, image.identity.parentHash == node.record.parent,
                        image.identity.tokens == tokens, image.identity.firstToken == node.firstOwnToken,
                        image.identity.modelFingerprint == fingerprint, image.tokenCount == node.ownTokens
                    else { throw StoreError(.damaged, "is another page's image") }
                    if decoding { try checker.decode(image) }
                }
            }
            return found == nil
                ? Finding(message: "is not in volume \(VolumeSet.fileName(of: encoding.volumeId))", isDamage: true) : nil
        } catch let error as StoreError where error.code == .keyRequired {
            // its checksums are right, and it is sealed as the index says: with a key that its tenant was given since the index was read
            index.report.lockedNodes += 1
            return nil
        } catch {
            return Finding(error)
        }
    }

    /// What is wrong with a page.
    fileprivate struct Finding {
        var message: String
        /// Whether it is the page's own fault.
        var isDamage: Bool
    }
}

extension PageCheck.Finding {
    fileprivate init(_ error: any Error) {
        message = "\(error)"
        isDamage = StoreError.isDamage(error)
    }
}

extension StoreError {
    /// Whether what was read is wrong or gone, and not that the system fails or a newer version is needed: that may be over the next time.
    static func isDamage(_ error: any Error) -> Bool {
        switch error {
        case let error as StoreError: [.damaged, .pageUnavailable, .notAStore].contains(error.code)
        case let error as CodecError: error.code == .damaged || error.code == .notAPage
        case let error as LMDBError: isDamage(StoreError(error))
        default: false
        }
    }
}

/// Decodes images to nowhere, to see that they can be.
final class ImageChecker {
    private let scratch = DecodeScratch()
    private var memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1, alignment: 64)

    deinit { memory.deallocate() }

    func decode(_ image: PageImage) throws {
        for (index, layer) in image.layers.enumerated() {
            guard let layer else { continue }
            let (geometry, tokens) = (layer.geometry, layer.tokens.count)
            let keyBytes = geometry.keyValueHeads * tokens * geometry.keyDim * 4
            let valueBytes = geometry.keyValueHeads * tokens * geometry.valueDim * 4
            if memory.count < keyBytes + valueBytes {
                memory.deallocate()
                memory = .allocate(byteCount: keyBytes + valueBytes, alignment: 64)
            }
            let view = { (offset: Int, dim: Int) in
                try MutableTensorView(
                    bytes: self.memory, offset: offset, elementType: .float32,
                    layout: .headsFirst(heads: geometry.keyValueHeads, tokens: tokens, dim: dim))
            }
            try image.decode(
                layer: index, tokens: layer.tokens, key: try view(0, geometry.keyDim),
                value: try view(keyBytes, geometry.valueDim),
                scratch: scratch, verifying: false)
        }
    }
}
