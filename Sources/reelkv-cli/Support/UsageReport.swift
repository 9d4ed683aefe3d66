import Rendering
import Reports

extension UsageReport {
    /// Nothing has happened yet.
    var isEmpty: Bool {
        [lookups, appendedBytes, evictedPages, expiredPages, demotedPages, refusedBytes].allSatisfy { $0 == 0 }
            && ages.allSatisfy { $0.pages == 0 }
    }

    func text(terminal: Terminal) -> String {
        """
        look-ups   \(Format.count(lookups)): \(counted(hits, "hit")), \(Format.count(misses)) \(misses == 1 ? "miss" : "misses")
        tokens     \(Format.count(tokensMatched)) of \(Format.count(tokensLookedUp)) looked up were stored: \
        \(Format.percentage(tokenHitRate))
        written    \(Format.bytes(appendedBytes)) appended, \(Format.bytes(copiedBytes)) copied, \
        \(Format.bytes(demotedBytes)) demoted: write amplification \(Format.decimal(writeAmplification, places: 2))
        evicted    \(counted(evictedPages, "page")) (\(Format.bytes(evictedBytes))); expired \
        \(counted(expiredPages, "page")) (\(Format.bytes(expiredBytes))); \
        \(counted(evictedSequences, "sequence")) gone with them
        demoted    \(counted(demotedPages, "page"))
        refused    \(Format.bytes(refusedBytes))

        """ + agesText(terminal)
    }

    /// A bar for each class of age, as long as the bytes in it.
    private func agesText(_ terminal: Terminal) -> String {
        let most = ages.map(\.bytes).max() ?? 0
        guard most > 0 else { return "" }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)]
        let (unit, shift) = units.last { most >> $0.1 > 0 } ?? units[0]
        let plot = BarPlot(
            title: "Pages by the time since their last use", valueName: unit, labels: ages.map(Self.label),
            series: [Series("", ages.map { Double($0.bytes) / Double(1 << shift) })])
        return "\n" + plot.text(terminal: terminal)
    }

    private static func label(_ age: Age) -> String {
        guard let seconds = age.secondsBelow else { return "older" }
        return "< " + (seconds < 3600 ? "\(seconds / 60) min" : seconds < 86400 ? "\(seconds / 3600) h" : "\(seconds / 86400) d")
    }
}
