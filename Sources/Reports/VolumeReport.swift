package import ReelKV

/// A volume as listings show it.
package struct VolumeReport: Encodable {
    package var file: String
    package var sealed: Bool
    package var fileBytes: Int
    package var liveBytes: Int
    package var livePages: Int
    package var deadBytes: Int

    enum CodingKeys: String, CodingKey {
        case file, sealed
        case fileBytes = "file_bytes"
        case liveBytes = "live_bytes"
        case livePages = "live_pages"
        case deadBytes = "dead_bytes"
    }

    package init(_ volume: StoreStatistics.Volume) {
        file = volume.fileName
        sealed = volume.isSealed
        fileBytes = volume.fileBytes
        liveBytes = volume.liveBytes
        livePages = volume.livePages
        deadBytes = volume.deadBytes
    }
}
