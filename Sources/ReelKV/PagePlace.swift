import KVCodec

/// Where an encoding of a node lies, as a check keeps it.
struct PagePlace {
    var node: NodeCatalog.Position
    var isQuarantined: Bool
    var imageBytes: UInt32
    var profile: UInt16
    var volume: UInt64
    var page: UInt64

    init(node: NodeCatalog.Position, _ encoding: EncodingRecord) {
        self.node = node
        isQuarantined = encoding.isQuarantined
        imageBytes = encoding.imageBytes
        profile = encoding.profileId
        volume = encoding.volumeId
        page = encoding.pageId
    }

    var location: VolumeSet.Location { VolumeSet.Location(volume: volume, page: page) }
}
