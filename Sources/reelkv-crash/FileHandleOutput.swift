#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Output without buffers: what was written outlives the process.
enum FileHandleOutput {
    static func error(_ text: String) { write(text, to: STDERR_FILENO) }

    /// Ends the process where nobody reads it any more.
    static func write(_ text: String, to file: CInt = STDOUT_FILENO) {
        let bytes = Array(text.utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { writeBytes(file, $0.baseAddress.map { $0 + done }, $0.count - done) }
            guard count > 0 else { exit(1) }
            done += count
        }
    }
}

private func writeBytes(_ file: CInt, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int { write(file, bytes, count) }
