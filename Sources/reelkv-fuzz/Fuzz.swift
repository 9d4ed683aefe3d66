import CFuzzer
import FuzzTargets

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// `reelkv-fuzz TARGET [ARGUMENT...]`: a fuzzer of the target, with libFuzzer's arguments, where it was built as one (`tools/fuzz`);
/// else runs the target once with each of the files named, or each file in the folders named.
@main
enum Fuzz {
    static func main() {
        let arguments = CommandLine.arguments
        guard arguments.count > 1, let target = FuzzTarget(rawValue: arguments[1]) else {
            say("usage: reelkv-fuzz \(FuzzTarget.allCases.map(\.rawValue).joined(separator: "|")) [ARGUMENT...]\n")
            exit(64)
        }
        if target == .commandLine { hush() }
        #if REELKV_FUZZ
            chosen = target
            exit(drive([arguments[0]] + arguments[2...]))
        #else
            var count = 0
            for path in arguments[2...] { count += run(target, path) }
            say("\(target.rawValue): \(count) inputs\n")
        #endif
    }

    /// Commands print; that is not what is looked at.
    private static func hush() {
        let nothing = open("/dev/null", O_WRONLY)
        dup2(nothing, STDOUT_FILENO)
        close(nothing)
        setenv("NO_COLOR", "1", 1)
    }

    fileprivate static func run(_ target: FuzzTarget, _ bytes: UnsafeRawBufferPointer) {
        do {
            try target.run(bytes)
        } catch {
            fatalError("\(target.rawValue): \(error)")
        }
    }
}

private func say(_ text: String) {
    let bytes = Array(text.utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}

#if REELKV_FUZZ
    // Set once, before the fuzzer begins.
    nonisolated(unsafe) private var chosen = FuzzTarget.pageImage

    /// Runs libFuzzer's own command line.
    private func drive(_ arguments: [String]) -> CInt {
        var count = CInt(arguments.count)
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        return pointers.withUnsafeMutableBufferPointer { buffer in
            var base = buffer.baseAddress
            return LLVMFuzzerRunDriver(&count, &base) { data, size in
                Fuzz.run(chosen, UnsafeRawBufferPointer(start: data, count: size))
                return 0
            }
        }
    }
#else
    extension Fuzz {
        /// - Returns: how many files were run.
        private static func run(_ target: FuzzTarget, _ path: String) -> Int {
            var status = stat()
            guard stat(path, &status) == 0 else {
                say("reelkv-fuzz: \(path) cannot be read\n")
                exit(1)
            }
            if status.st_mode & S_IFMT == S_IFDIR {
                return names(path).reduce(0) { $0 + run(target, path + "/" + $1) }
            }
            guard let file = fopen(path, "r") else { exit(1) }
            defer { fclose(file) }
            // As libFuzzer gives them: with nothing behind them that could be read by mistake.
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(status.st_size), alignment: 1)
            defer { bytes.deallocate() }
            guard fread(bytes.baseAddress, 1, bytes.count, file) == bytes.count else { exit(1) }
            // The last line names the input that a crash came from.
            say("\(path)\n")
            run(target, UnsafeRawBufferPointer(bytes))
            return 1
        }

        private static func names(_ path: String) -> [String] {
            guard let folder = opendir(path) else { return [] }
            defer { closedir(folder) }
            var names: [String] = []
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if !name.hasPrefix(".") { names.append(name) }
            }
            return names.sorted()
        }
    }
#endif
