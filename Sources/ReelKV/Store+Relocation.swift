import KVCodec
import LMDB

extension Store {
    /// Copies pages' images into the volume that this process writes, lets the index say that they lie there, and removes volumes in
    /// which nothing is left. Pages that are gone already are passed over.
    package func move(_ pages: [StoredPage]) throws {
        let found = try pages.compactMap { page -> (page: StoredPage, image: [UInt8])? in
            let image = try volumes.volume(page.volumeID).withImage(page.pageID) { Array($0) }
            return image.map { (page, $0) }
        }
        let locations = try StoreError.translating { try volumes.append(found.map(\.image), replacesOthers: true) }
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
            let place = VolumeSet.Location(volume: page.volumeID, page: page.pageID)
            guard try index.requiredNode(page.chainHash, in: transaction).encodings.count > 1 else {
                throw StoreError(.invalidArgument, "it is the page's only encoding")
            }
            try index.dropEncoding(page.chainHash, at: place, in: transaction)
        }
        try removeDeadVolumes()
    }
}
