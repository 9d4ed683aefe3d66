package import ReelKV

/// What a verification looked at and what it found.
package struct VerifyReport: Encodable {
    package struct Problem: Encodable {
        package var kind: String
        package var subject: String
        package var message: String
    }

    package var sound: Bool
    package var nodes: Int
    package var pages: Int
    package var sequences: Int
    package var volumes: Int
    package var bytes: Int
    package var quarantined: Int
    package var problems: [Problem]

    package init(_ report: VerificationReport) {
        sound = report.isSound
        nodes = report.nodes
        pages = report.pages
        sequences = report.heads
        volumes = report.volumes
        bytes = report.bytes
        quarantined = report.quarantined
        problems = report.problems.map { Problem(kind: $0.kind.rawValue, subject: $0.subject, message: $0.message) }
    }
}
