import KVCodec
import LMDB

extension Index {
    /// Makes the index say that an encoding lies elsewhere, where its image was copied to. The new volume's bytes count as live there,
    /// not as written: nothing was stored that was not stored before.
    ///
    /// - Returns: false when the encoding is no longer where it was; nothing is changed then.
    func relocate(
        _ hash: Digest, from old: VolumeSet.Location, to new: VolumeSet.Location, in transaction: borrowing WriteTransaction
    ) throws -> Bool {
        guard var node = try node(hash, in: transaction),
            let place = node.encodings.firstIndex(where: { $0.location == old })
        else { return false }
        node.encodings[place].volumeId = new.volume
        node.encodings[place].pageId = new.page
        try putNode(node, hash: hash, in: transaction)
        let bytes = UInt64(node.encodings[place].imageBytes)
        try updateVolume(old.volume, in: transaction) { volume in
            volume.liveBytes -= min(volume.liveBytes, bytes)
            volume.livePages -= min(volume.livePages, 1)
        }
        try updateVolume(new.volume, in: transaction) { volume in
            volume.liveBytes += bytes
            volume.livePages += 1
        }
        return true
    }
}

extension Store {
    /// Copies pages' images into the volume that this process writes, lets the index say that they lie there, and removes volumes in
    /// which nothing is left. Pages that are gone already are passed over.
    package func move(_ pages: [StoredPage]) throws {
        let found = try pages.compactMap { page -> (page: StoredPage, image: [UInt8])? in
            let image = try volumes.volume(page.volumeID).withImage(page.pageID) { Array($0) }
            return image.map { (page, $0) }
        }
        let locations = try StoreError.translating { try volumes.append(found.map(\.image)) }
        defer { volumes.settle(locations) }
        try write { transaction in
            for (moved, location) in zip(found, locations) {
                let old = VolumeSet.Location(volume: moved.page.volumeID, page: moved.page.pageID)
                _ = try index.relocate(moved.page.chainHash, from: old, to: location, in: transaction)
            }
        }
        try removeDeadVolumes()
    }

    /// Drops one encoding of a page that is stored in others too, as when it was re-encoded to another profile.
    package func dropEncoding(_ page: StoredPage) throws {
        try write { transaction in
            var node = try index.requiredNode(page.chainHash, in: transaction)
            let dropped = node.encodings.filter { $0.volumeId == page.volumeID && $0.pageId == page.pageID }
            guard node.encodings.count > dropped.count else {
                throw StoreError(.invalidArgument, "it is the page's only encoding")
            }
            node.encodings.removeAll { dropped.contains($0) }
            try index.putNode(node, hash: page.chainHash, in: transaction)
            for encoding in dropped {
                try index.updateVolume(encoding.volumeId, in: transaction) { volume in
                    volume.liveBytes -= min(volume.liveBytes, UInt64(encoding.imageBytes))
                    volume.livePages -= min(volume.livePages, 1)
                }
            }
        }
        try removeDeadVolumes()
    }
}
