import Rendering
import Reports

extension VolumeReport {
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
