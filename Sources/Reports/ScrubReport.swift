package import ReelKV

/// What a scrub did.
package struct ScrubResult: Encodable {
    package var pages: Int
    package var bytes: Int
    package var damaged: Int
    package var finished: Bool

    package init(_ report: ScrubReport) {
        pages = report.pages
        bytes = report.bytes
        damaged = report.damaged
        finished = report.isRoundFinished
    }
}

/// What scrubs have done since the store was created, as `stats` shows it.
package struct ScrubStatisticsReport: Encodable {
    package var pages: Int
    package var bytes: Int
    package var damaged: Int
    /// Unix time; missing when no round has ended, or none is under way.
    package var finishedSeconds: Int64?
    package var startedSeconds: Int64?

    enum CodingKeys: String, CodingKey {
        case pages, bytes, damaged
        case finishedSeconds = "finished_seconds"
        case startedSeconds = "started_seconds"
    }

    package init(_ statistics: ScrubStatistics) {
        pages = statistics.pages
        bytes = statistics.bytes
        damaged = statistics.damaged
        finishedSeconds = statistics.finishedSeconds
        startedSeconds = statistics.startedSeconds
    }
}
