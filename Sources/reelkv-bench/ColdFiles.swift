#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Takes files out of the page cache, so that the next to read them waits for the disk.
enum ColdFiles {
    /// How it was done.
    enum Way: String, Encodable {
        /// The system dropped all clean pages.
        case dropCaches = "drop_caches"
        /// The system was asked for these files alone; it may keep what it likes.
        case advice = "posix_fadvise"
        /// Nothing the system offers.
        case none
    }

    /// Files under `folder`, which nobody may have mapped.
    static func evict(under folder: String) -> Way {
        #if os(Linux)
            advise(folder)
            sync()
            guard let file = fopen("/proc/sys/vm/drop_caches", "w") else { return .advice }
            defer { fclose(file) }
            return fputs("1", file) >= 0 && fflush(file) == 0 ? .dropCaches : .advice
        #else
            return .none
        #endif
    }

    #if os(Linux)
        private static func advise(_ path: String) {
            if let folder = opendir(path) {
                defer { closedir(folder) }
                while let entry = readdir(folder) {
                    let name = withUnsafePointer(to: &entry.pointee.d_name) {
                        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                    }
                    if name != ".", name != ".." { advise(path + "/" + name) }
                }
                return
            }
            let descriptor = open(path, O_RDONLY)
            guard descriptor >= 0 else { return }
            defer { close(descriptor) }
            fdatasync(descriptor)
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
        }
    #endif
}
