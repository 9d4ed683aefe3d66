package import ReelKV

/// What a verification looked at and what it found, and what a repair did about it.
package struct VerifyReport: Encodable {
    package struct Problem: Encodable {
        package var kind: String
        package var subject: String
        package var message: String

        init(_ problem: VerificationProblem) {
            kind = problem.kind.rawValue
            subject = problem.subject
            message = problem.message
        }
    }

    package struct Leftover: Encodable {
        package var path: String
        package var bytes: Int
        package var message: String
    }

    /// What a repair did, or would do.
    package struct Repair: Encodable {
        package var dryRun: Bool
        /// Whether the index was lost, and was made anew from the volumes.
        package var rebuilt: Bool
        package var nodesRecovered: Int
        package var changes: [Problem]
        package var left: [Problem]

        enum CodingKeys: String, CodingKey {
            case rebuilt, changes, left
            case dryRun = "dry_run"
            case nodesRecovered = "nodes_recovered"
        }
    }

    /// Whether nothing is wrong, or nothing is any more.
    package var sound: Bool
    package var nodes: Int
    package var pages: Int
    package var sequences: Int
    package var volumes: Int
    package var bytes: Int
    package var quarantined: Int
    /// Records of encrypted tenants whose keys were not given; missing where there are none.
    package var lockedNodes: Int?
    package var orphanPages: Int
    package var orphanBytes: Int
    package var leftovers: [Leftover]
    /// How many problems there are, by kind.
    package var counts: [String: Int]
    package var problems: [Problem]
    package var repair: Repair?

    enum CodingKeys: String, CodingKey {
        case sound, nodes, pages, sequences, volumes, bytes, quarantined, leftovers, counts, problems, repair
        case lockedNodes = "locked_nodes"
        case orphanPages = "orphan_pages"
        case orphanBytes = "orphan_bytes"
    }

    package init(_ report: VerificationReport) {
        sound = report.isSound
        nodes = report.nodes
        pages = report.pages
        sequences = report.heads
        volumes = report.volumes
        bytes = report.bytes
        quarantined = report.quarantined
        lockedNodes = report.lockedNodes == 0 ? nil : report.lockedNodes
        orphanPages = report.orphanPages
        orphanBytes = report.orphanBytes
        leftovers = report.leftovers.map { Leftover(path: $0.path, bytes: $0.bytes, message: $0.message) }
        counts = Dictionary(uniqueKeysWithValues: report.counts.map { ($0.key.rawValue, $0.value) })
        problems = report.problems.map(Problem.init)
    }

    package init(_ report: RepairReport, isDryRun: Bool) {
        self.init(report.found)
        sound = report.isSound
        repair = Repair(
            dryRun: isDryRun, rebuilt: report.isRebuilt, nodesRecovered: report.nodesRecovered,
            changes: report.changes.map(Problem.init), left: report.left.map(Problem.init))
    }
}
