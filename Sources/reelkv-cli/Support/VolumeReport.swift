import ReelKV
import Rendering

/// A volume as listings show it.
struct VolumeReport: Encodable {
    var file: String
    var sealed: Bool
    var fileBytes: Int
    var liveBytes: Int
    var livePages: Int
    var deadBytes: Int

    enum CodingKeys: String, CodingKey {
        case file, sealed
        case fileBytes = "file_bytes"
        case liveBytes = "live_bytes"
        case livePages = "live_pages"
        case deadBytes = "dead_bytes"
    }

    init(_ volume: StoreStatistics.Volume) {
        file = volume.fileName
        sealed = volume.isSealed
        fileBytes = volume.fileBytes
        liveBytes = volume.liveBytes
        livePages = volume.livePages
        deadBytes = volume.deadBytes
    }

    static func table(_ volumes: [VolumeReport]) -> String {
        var table = TextTable(
            .left("FILE"), .left("STATE"), .right("BYTES"), .right("LIVE BYTES"), .right("LIVE PAGES"),
            .right("DEAD BYTES"))
        for volume in volumes {
            table.append(
                volume.file, volume.sealed ? "sealed" : "active", Format.bytes(volume.fileBytes),
                Format.bytes(volume.liveBytes), Format.count(volume.livePages), Format.bytes(volume.deadBytes))
        }
        return table.text()
    }
}
