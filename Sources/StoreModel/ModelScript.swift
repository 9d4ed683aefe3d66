/// Steps as text, and what makes a run fail made as short as can be.
package enum ModelScript {
    /// Leaves steps out, first many at once (delta debugging: Zeller and Hildebrandt, 2002), then makes their numbers smaller, for as long
    /// as the run still fails.
    package static func shrunk(_ steps: [ModelStep], fails: ([ModelStep]) -> Bool) -> [ModelStep] {
        var steps = steps
        var size = max(1, steps.count / 2)
        while true {
            var start = 0
            var isShorter = false
            while start < steps.count {
                var fewer = steps
                fewer.removeSubrange(start..<min(steps.count, start + size))
                if fails(fewer) { (steps, isShorter) = (fewer, true) } else { start += size }
            }
            if size == 1, !isShorter { break }
            size = max(1, size / 2)
        }
        for index in steps.indices {
            for field in [\ModelStep.sequence, \ModelStep.amount, \ModelStep.actor] {
                while steps[index][keyPath: field] > 0 {
                    var smaller = steps
                    smaller[index][keyPath: field] /= 2
                    guard fails(smaller) else { break }
                    steps = smaller
                }
            }
        }
        return steps
    }

    package static func text(_ steps: [ModelStep]) -> String { steps.map { "\($0)\n" }.joined() }

    /// - Returns: nil where a line is none.
    package static func parse(_ text: String) -> [ModelStep]? {
        let lines = text.split(separator: "\n")
        let steps = lines.compactMap { ModelStep($0) }
        return steps.count == lines.count ? steps : nil
    }
}
