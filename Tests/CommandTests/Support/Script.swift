import Foundation
import Testing

/// Commands with the output that each is to give.
///
/// - `$ command` is a line of shell; the lines that follow are its standard output, then its standard error.
/// - `[n]` on the last of them is its exit status, where that is not 0.
/// - `*` in an expected line stands for any characters: times, sizes and errors that may change. A line `...` stands for any
///   number of lines. A run of spaces is like one space, so that columns may grow.
/// - `# text` before a command is a comment.
struct Script: Sendable, CustomTestStringConvertible {
    struct Step: Sendable {
        var command: String
        var line: Int
        var expected: [String]
        var status: Int32
    }

    var name: String
    var steps: [Step]

    var testDescription: String { name }

    /// The scripts beside the tests.
    static let all: [Script] = {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "Scripts")
        let files = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        return files.filter { $0.pathExtension == "txt" }.sorted { $0.path < $1.path }.compactMap { file in
            (try? String(contentsOf: file, encoding: .utf8)).map {
                Script(name: file.deletingPathExtension().lastPathComponent, text: $0)
            }
        }
    }()

    init(name: String, text: String) {
        self.name = name
        steps = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if line.hasPrefix("$ ") {
                steps.append(Step(command: String(line.dropFirst(2)), line: index + 1, expected: [], status: 0))
            } else if line.hasPrefix("#") || steps.isEmpty {
                continue
            } else if let status = Self.status(line) {
                steps[steps.count - 1].status = status
            } else {
                steps[steps.count - 1].expected.append(String(line))
            }
        }
    }

    private static func status(_ line: Substring) -> Int32? {
        guard line.hasPrefix("["), line.hasSuffix("]") else { return nil }
        return Int32(line.dropFirst().dropLast())
    }

    /// Whether `actual` is what a step is to print; blank lines do not matter.
    static func matches(_ actual: String, _ expected: [String]) -> Bool {
        let lines = actual.split(separator: "\n").map { words(String($0)) }.filter { !$0.isEmpty }
        return matches(lines[...], expected.map(words).filter { !$0.isEmpty }[...])
    }

    private static func matches(_ lines: ArraySlice<String>, _ patterns: ArraySlice<String>) -> Bool {
        guard let pattern = patterns.first else { return lines.isEmpty }
        if pattern == "..." {
            return (lines.startIndex...lines.endIndex).contains { matches(lines[$0...], patterns.dropFirst()) }
        }
        guard let line = lines.first, matches(line, pattern: pattern) else { return false }
        return matches(lines.dropFirst(), patterns.dropFirst())
    }

    private static func matches(_ line: String, pattern: String) -> Bool {
        var parts = pattern.split(separator: "*", omittingEmptySubsequences: false).map(String.init)
        guard parts.count > 1 else { return line == pattern }
        let last = parts.removeLast()
        guard line.hasPrefix(parts[0]) else { return false }
        var rest = line.dropFirst(parts[0].count)
        for part in parts.dropFirst() where !part.isEmpty {
            guard let found = rest.range(of: part) else { return false }
            rest = rest[found.upperBound...]
        }
        return rest.hasSuffix(last)
    }

    private static func words(_ line: String) -> String {
        line.split(separator: " ").joined(separator: " ")
    }
}
