import Foundation

/// What a process printed, and how it ended.
struct Outcome: Sendable {
    var output: String
    var errors: String
    var status: Int32
}

/// Runs shell commands in a folder of their own, with the built `reelkv` on the path.
struct Tool {
    /// Where the package's products lie: beside the test bundle.
    static let products: URL? = {
        for argument in CommandLine.arguments + [Bundle.main.bundlePath] {
            guard let end = argument.range(of: ".xctest")?.upperBound else { continue }
            let folder = URL(filePath: String(argument[..<end])).deletingLastPathComponent()
            if FileManager.default.isExecutableFile(atPath: folder.appending(path: "reelkv").path) { return folder }
        }
        return nil
    }()

    static let fixtures = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().appending(path: "Fixtures")

    let folder: URL
    private let binary: URL

    struct Missing: Error, CustomStringConvertible {
        let description = "no reelkv executable beside the test bundle: build the package's products first"
    }

    /// - Parameter folder: where commands run.
    init(in folder: URL) throws {
        guard let products = Self.products else { throw Missing() }
        binary = products
        self.folder = folder
    }

    /// Runs one line of shell. `$FIXTURES` is the fixtures' folder, `$REELKV_STORE` the folder `store`.
    func run(_ line: String) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = ["-c", line]
        process.currentDirectoryURL = folder
        var environment = ProcessInfo.processInfo.environment
        environment["PATH"] = binary.path + ":" + (environment["PATH"] ?? "/usr/bin:/bin")
        environment["FIXTURES"] = Self.fixtures.path
        environment["REELKV_STORE"] = "store"
        environment["COLUMNS"] = "100"
        process.environment = environment
        let files = try (0..<2).map { _ in try scratchFile() }
        defer { for file in files { try? FileManager.default.removeItem(at: file.url) } }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = files[0].handle
        process.standardError = files[1].handle
        try process.run()
        process.waitUntilExit()
        let texts = try files.map { String(decoding: try Data(contentsOf: $0.url), as: UTF8.self) }
        return Outcome(output: texts[0], errors: texts[1], status: process.terminationStatus)
    }

    private func scratchFile() throws -> (url: URL, handle: FileHandle) {
        let url = FileManager.default.temporaryDirectory.appending(path: "reelkv-output-\(UUID().uuidString)")
        try Data().write(to: url)
        return (url, try FileHandle(forWritingTo: url))
    }

    /// Runs `body` with a tool in a new folder, which is deleted afterwards.
    static func withFolder(_ body: (Tool) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "reelkv-tests-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(try Tool(in: folder))
    }
}
