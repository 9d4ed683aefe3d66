import ReelKV
import Rendering

/// What was evicted, or would be.
struct EvictionSummary: Encodable {
    struct Sequence: Encodable {
        var name: String
        var tenant: String
    }

    var pages: Int
    var bytes: Int
    /// The videos and sessions that lost their last page, and are gone.
    var gone: [Sequence]

    init(_ report: EvictionReport) {
        pages = report.pages
        bytes = report.bytes
        gone = report.sequences.map { Sequence(name: $0.description, tenant: $0.tenant) }
    }

    private static let namesShown = 20

    func text(isPlan: Bool = false) -> String {
        guard pages > 0 else { return isPlan ? "nothing would be evicted\n" : "nothing was evicted\n" }
        var text = "\(isPlan ? "would evict" : "evicted") \(counted(pages, "page")) (\(Format.bytes(bytes)))\n"
        guard !gone.isEmpty else { return text }
        let names = gone.prefix(Self.namesShown).map { sequence in
            let tenant = sequence.tenant == Store.defaultTenant ? "" : " of tenant \(sequence.tenant)"
            return singleLine(sequence.name + tenant)
        }
        text += "\(isPlan ? "would be gone" : "gone"): \(names.joined(separator: ", "))"
        let rest = gone.count - names.count
        return text + (rest > 0 ? " and \(Format.count(rest)) more\n" : "\n")
    }
}
