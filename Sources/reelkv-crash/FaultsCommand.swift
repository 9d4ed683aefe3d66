import ArgumentParser
import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Fails one call of the system after the other, and looks at what each process makes of it.
struct FaultsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "faults",
        abstract: "Fails the first, second, ... call of a process on its files, and looks at what it makes of that.",
        discussion: """
            The same process runs again and again: it writes, evicts, compacts and demotes. Each time another call fails: a write, a \
            flush, a renaming, the making of a file. The step that meets it must fail with an error of the store's own or succeed, and \
            have happened or not; all later steps must go well, and the store must be sound and whole.
            """)

    @Option(help: "The library that fails calls; tools/crash builds it.") var library: String
    @Option(help: "Steps of the process.") var steps = 25
    @Option(help: "What all choices follow from.") var seed: UInt64 = 1
    @Option(help: "The first call that fails.") var from = 1
    @Option(help: "Every how many-th call fails.") var stride = 1
    @Option(help: "Where stores are made.") var folder = "/tmp"

    /// No space, a disk that fails, a user's quota, too many open files; 0 is a write that takes only half.
    private static let errors: [(name: String, code: CInt)] = [
        ("ENOSPC", ENOSPC), ("EIO", EIO), ("EDQUOT", EDQUOT), ("EMFILE", EMFILE), ("half a write", 0),
    ]
    private static let faultsMax = 5

    func run() throws {
        var (tried, faults) = (0, [String]())
        var calls: [String: Int] = [:]
        for error in Self.errors {
            var call = from
            while faults.count < Self.faultsMax {
                var run = try CrashRun(folder: folder, seed: seed, mib: 0)
                do {
                    guard let name = try run.fail(call: call, code: error.code, library: library, steps: steps, seed: seed) else {
                        run.remove()
                        break
                    }
                    calls[name, default: 0] += 1
                    run.remove()
                } catch {
                    faults.append("call \(call), \(error), store \(run.path)")
                }
                tried += 1
                call += stride
            }
        }
        for fault in faults { print("fault: \(fault)") }
        for (name, count) in calls.sorted(by: { $0.key < $1.key }) { print("  \(count) at: \(name)") }
        print("\(tried) failed calls, \(faults.count) faults (seed \(seed))")
        if !faults.isEmpty { throw ExitCode.failure }
    }
}

extension CrashRun {
    /// Runs a process whose `call`-th call fails.
    ///
    /// - Returns: the call's name; nil when the process has fewer.
    mutating func fail(call: Int, code: CInt, library: String, steps: Int, seed: UInt64) throws -> String? {
        let fired = path + "-fired"
        unlink(fired)
        let child = try ChildProcess.run(
            ["work", "--store", path, "--seed", "\(seed)", "--steps", "\(steps)", "--evicts", "--may-fail"],
            environment: [
                "LD_PRELOAD": library, "REELKV_FAULT_FOLDER": path, "REELKV_FAULT_CALL": "\(call)",
                "REELKV_FAULT_ERRNO": "\(code)",
                "REELKV_FAULT_FIRED": fired,
            ])
        guard access(fired, F_OK) == 0 else { return nil }
        let what = "\(Self.text(fired)) with errno \(code)"
        guard child.ending == "status 0" else {
            throw Fault(description: "\(what): \(child.ending), after \(child.lines.suffix(2))")
        }
        var outcome = CrashOutcome(seed: seed)
        for line in child.lines { take(line, into: &outcome) }
        do { try look(into: &outcome, seed: seed) } catch { throw Fault(description: "\(what): \(error)") }
        return Self.text(fired)
    }

    private static func text(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
