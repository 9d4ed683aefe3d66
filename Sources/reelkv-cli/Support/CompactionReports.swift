import ReelKV
import Rendering

/// What a compaction would do.
struct CompactionPlanReport: Encodable {
    struct Volume: Encodable {
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
    }

    var volumes: [Volume]
    var bytesToCopy: Int
    var bytesToFree: Int
    var folderBytes: Int
    var liveBytes: Int
    var unfinished: Int
    var demotion: DemotionSummary?

    enum CodingKeys: String, CodingKey {
        case volumes, unfinished, demotion
        case bytesToCopy = "bytes_to_copy"
        case bytesToFree = "bytes_to_free"
        case folderBytes = "folder_bytes"
        case liveBytes = "live_bytes"
    }

    init(_ plan: CompactionPlan, _ demotion: DemotionReport?) {
        self.demotion = demotion.map { DemotionSummary(pages: $0.pages, bytesBefore: $0.bytesBefore) }
        volumes = plan.victims.map {
            Volume(
                file: $0.fileName, sealed: $0.isSealed, fileBytes: $0.fileBytes, liveBytes: $0.liveBytes,
                livePages: $0.livePages, deadBytes: $0.deadBytes)
        }
        bytesToCopy = plan.bytesToCopy
        bytesToFree = plan.bytesToFree
        folderBytes = plan.folderBytes
        liveBytes = plan.liveBytes
        unfinished = plan.unfinished
    }

    func text() -> String {
        var text = ""
        if let demotion {
            text += "would demote up to \(counted(demotion.pages, "page")) of \(Format.bytes(demotion.bytesBefore))\n"
        }
        if !volumes.isEmpty {
            var table = TextTable(
                .left("FILE"), .left("STATE"), .right("BYTES"), .right("LIVE BYTES"), .right("LIVE PAGES"),
                .right("DEAD BYTES"))
            for volume in volumes {
                table.append(
                    volume.file, volume.sealed ? "sealed" : "active", Format.bytes(volume.fileBytes),
                    Format.bytes(volume.liveBytes), Format.count(volume.livePages), Format.bytes(volume.deadBytes))
            }
            text += table.text()
        }
        if unfinished > 0 { text += "would delete \(counted(unfinished, "unfinished sequence"))\n" }
        let size = "the store takes \(Format.bytes(folderBytes)) for \(Format.bytes(liveBytes)) of live pages"
        return text
            + (volumes.isEmpty
                ? "no volume to empty: \(size)\n"
                : "would copy \(Format.bytes(bytesToCopy)) and free \(Format.bytes(bytesToFree)): \(size)\n")
    }
}

/// What was demoted first, or would be.
struct DemotionSummary: Encodable {
    var pages: Int
    var bytesBefore: Int
    /// Known only once it is done.
    var bytesAfter: Int?
    var pagesLeft: Int?

    enum CodingKeys: String, CodingKey {
        case pages
        case bytesBefore = "bytes_before"
        case bytesAfter = "bytes_after"
        case pagesLeft = "pages_left"
    }
}

/// What a compaction did.
struct CompactionResult: Encodable {
    var volumesRemoved: Int
    var volumesInUse: Int
    var volumesUnreadable: Int
    var pagesCopied: Int
    var bytesCopied: Int
    var bytesFreed: Int
    var folderBytesBefore: Int
    var folderBytesAfter: Int
    var liveBytes: Int
    var unfinishedRemoved: Int
    var superfluousDropped: Int
    var damagedPages: Int
    var demotion: DemotionSummary?

    enum CodingKeys: String, CodingKey {
        case demotion
        case volumesRemoved = "volumes_removed"
        case volumesInUse = "volumes_in_use"
        case volumesUnreadable = "volumes_unreadable"
        case pagesCopied = "pages_copied"
        case bytesCopied = "bytes_copied"
        case bytesFreed = "bytes_freed"
        case folderBytesBefore = "folder_bytes_before"
        case folderBytesAfter = "folder_bytes_after"
        case liveBytes = "live_bytes"
        case unfinishedRemoved = "unfinished_removed"
        case superfluousDropped = "superfluous_dropped"
        case damagedPages = "damaged_pages"
    }

    init(_ report: CompactionReport, _ demotion: DemotionReport?) {
        self.demotion = demotion.map {
            DemotionSummary(
                pages: $0.pages, bytesBefore: $0.bytesBefore, bytesAfter: $0.bytesAfter, pagesLeft: $0.pagesLeft)
        }
        volumesRemoved = report.volumesRemoved
        volumesInUse = report.volumesInUse
        volumesUnreadable = report.volumesUnreadable
        pagesCopied = report.pagesCopied
        bytesCopied = report.bytesCopied
        bytesFreed = report.bytesFreed
        folderBytesBefore = report.folderBytesBefore
        folderBytesAfter = report.folderBytesAfter
        liveBytes = report.liveBytes
        unfinishedRemoved = report.unfinishedRemoved
        superfluousDropped = report.dominatedDropped
        damagedPages = report.damagedPages
    }

    func text() -> String {
        var text = demotion.map { Self.text($0) } ?? ""
        text +=
            "emptied \(counted(volumesRemoved, "volume")), copied \(counted(pagesCopied, "page")) (\(Format.bytes(bytesCopied)))\n"
        if unfinishedRemoved > 0 { text += "deleted \(counted(unfinishedRemoved, "unfinished sequence"))\n" }
        if superfluousDropped > 0 {
            text += "dropped \(counted(superfluousDropped, "encoding")) of pages stored as well elsewhere\n"
        }
        if damagedPages > 0 {
            text += "found \(counted(damagedPages, "damaged page")): not stored from now on, import their tokens anew\n"
        }
        if volumesInUse > 0 { text += "left alone \(counted(volumesInUse, "volume")) that another process writes\n" }
        if volumesUnreadable > 0 {
            text += "left alone \(counted(volumesUnreadable, "volume")) that cannot be read: `reelkv verify` says why\n"
        }
        return text
            + "the store takes \(Format.bytes(folderBytesAfter)) for \(Format.bytes(liveBytes)) of live pages, "
            + "it took \(Format.bytes(folderBytesBefore))\n"
    }

    private static func text(_ demotion: DemotionSummary) -> String {
        let left = demotion.pagesLeft ?? 0
        return
            "demoted \(counted(demotion.pages, "page")): \(Format.bytes(demotion.bytesBefore)) became \(Format.bytes(demotion.bytesAfter ?? 0))\n"
            + (left > 0 ? "left \(counted(left, "page")) that would not be smaller, or that somebody holds\n" : "")
    }
}
