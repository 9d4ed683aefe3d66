import ArgumentParser

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What a file system takes for what a bounded store asks of it: appending to files, waiting until that is on the device, and removing
/// the oldest file for each new one.
///
/// It is the floor under the times of puts. Where it stalls, as one does that tells its device of all freed space at once (ext4 with
/// the mount option `discard`), so do they.
struct FileSystemProbe {
    let folder: String
    let putBytes: Int
    let fileBytes: Int
    let filesMax: Int

    /// Writes from several threads at once, each to its own files.
    ///
    /// - Returns: the seconds that each put took, in ascending order.
    func seconds(writing bytes: Int, threads: Int) async throws -> [Double] {
        try await withThrowingTaskGroup(of: [Double].self) { group in
            for thread in 0..<threads { group.addTask { try seconds(writing: bytes / threads, thread: thread) } }
            return try await group.reduce(into: []) { $0 += $1 }.sorted()
        }
    }

    private func seconds(writing bytes: Int, thread: Int) throws -> [Double] {
        func path(_ number: Int) -> String { "\(folder)/probe-\(thread)-\(number)" }
        let block = [UInt8]((0..<putBytes).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 11) })
        let putsPerFile = max(1, fileBytes / putBytes)
        let fileCount = max(1, bytes / (putsPerFile * putBytes))
        let clock = ContinuousClock()
        var times: [Double] = []
        defer { (0..<fileCount).forEach { unlink(path($0)) } }
        for file in 0..<fileCount {
            let descriptor = open(path(file), O_WRONLY | O_CREAT | O_EXCL, 0o600)
            guard descriptor >= 0 else { throw ValidationError("cannot make \(path(file))") }
            defer { close(descriptor) }
            for _ in 0..<putsPerFile {
                let start = clock.now
                guard write(descriptor, block, block.count) == block.count, fsync(descriptor) == 0 else {
                    throw ValidationError("cannot write \(path(file))")
                }
                times.append((clock.now - start).seconds)
            }
            if file >= filesMax { unlink(path(file - filesMax)) }
        }
        return times
    }
}
