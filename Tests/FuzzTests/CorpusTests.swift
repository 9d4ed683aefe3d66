import Foundation
import FuzzTargets
import Testing

/// Every input that a fuzzer ever found worth keeping: what something had to be fixed for, and what led it through the code.
@Suite("Fuzz corpora", .timeLimit(.minutes(20)))
struct CorpusTests {
    private static let corpora = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Corpora")

    /// The fuzzer, without libFuzzer, beside the test bundle.
    private static let fuzzer: URL? = {
        for argument in CommandLine.arguments + [Bundle.main.bundlePath] {
            guard let end = argument.range(of: ".xctest")?.upperBound else { continue }
            let program = URL(filePath: String(argument[..<end])).deletingLastPathComponent().appending(path: "reelkv-fuzz")
            if FileManager.default.isExecutableFile(atPath: program.path) { return program }
        }
        return nil
    }()

    @Test(arguments: FuzzTarget.allCases)
    func everyInputEndsWell(target: FuzzTarget) throws {
        let process = Process()
        let program: URL = try #require(Self.fuzzer, "no reelkv-fuzz: build the package's products first")
        process.executableURL = program
        process.arguments = [target.rawValue, Self.corpora.appending(path: target.rawValue).path]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let lines = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self).split(separator: "\n")
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(lines.suffix(40).joined(separator: "\n"))")
        let last = try #require(lines.last)
        #expect(last.hasSuffix(" inputs") && !last.hasSuffix(": 0 inputs"), "\(last)")
    }

    @Test func everyTargetHasACorpus() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpora.path).filter { !$0.hasPrefix(".") }
        #expect(Set(folders) == Set(FuzzTarget.allCases.map(\.rawValue)))
    }
}
