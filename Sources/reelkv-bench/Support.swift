import ArgumentParser
import Dispatch

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A folder for one benchmark's store.
struct TemporaryFolder {
    let path: String

    init() throws {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(base)/reelkv-bench-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw ValidationError("cannot make a folder in \(base)") }
        path = String(cString: made)
    }

    func remove() { Self.removeTree(path) }

    private static func removeTree(_ path: String) {
        if let folder = opendir(path) {
            defer { closedir(folder) }
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { removeTree(path + "/" + name) }
            }
        }
        unlink(path)
        rmdir(path)
    }
}

extension Duration {
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }

    /// Three digits and a unit.
    var formatted: String {
        seconds < 1e-3 ? "\(rounded(seconds * 1e6)) µs" : seconds < 1 ? "\(rounded(seconds * 1e3)) ms" : "\(rounded(seconds)) s"
    }
}

/// A number with as many decimals as three significant digits need.
func rounded(_ value: Double) -> String {
    let decimals = value >= 100 ? 1.0 : value >= 10 ? 10.0 : 100.0
    return "\((value * decimals).rounded() / decimals)"
}

/// The most memory that this process has had resident, in bytes.
func peakResidentBytes() -> Int {
    var usage = rusage()
    #if canImport(Darwin)
        getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss
    #else
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss * 1024
    #endif
}

/// The memory that this process has for itself now, in bytes; nil where the system does not tell.
func privateResidentBytes() -> Int? {
    guard let file = fopen("/proc/self/status", "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
        let words = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: "\t")
        guard words.first == "RssAnon:", let kilobytes = words.last?.split(separator: " ").first else { continue }
        return Int(kilobytes).map { $0 * 1024 }
    }
    return nil
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

/// Copies the first half of the memory over the second and back, on all cores: as many bytes written as it has.
func copyInParallel(_ memory: UnsafeMutableRawBufferPointer) {
    let half = memory.count / 2
    let threads = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    nonisolated(unsafe) let memory = memory
    for (from, to) in [(0, half), (half, 0)] {
        DispatchQueue.concurrentPerform(iterations: threads) { thread in
            let range = half * thread / threads..<half * (thread + 1) / threads
            UnsafeMutableRawBufferPointer(rebasing: memory[(to + range.lowerBound)..<(to + range.upperBound)])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[(from + range.lowerBound)..<(from + range.upperBound)]))
        }
    }
}
