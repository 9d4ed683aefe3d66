#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A stretch of an open file in memory, unmapped with the last reference to it.
///
/// Sendable because address and length never change; what may be done with the bytes is for the owner to say.
final class FileMapping: @unchecked Sendable {
    /// The bytes asked for; the mapping itself begins at the page boundary before them.
    let bytes: UnsafeMutableRawBufferPointer
    private let pages: UnsafeMutableRawBufferPointer

    /// Maps `range` of the file, which must not be empty and must lie within it. Nil with `errno` set if that fails.
    init?(_ descriptor: CInt, _ range: Range<Int>, writable: Bool) {
        let start = range.lowerBound - range.lowerBound % FileMapping.pageByteCount
        let count = range.upperBound - start
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        guard let address = mmap(nil, count, protection, MAP_SHARED, descriptor, off_t(start)), address != MAP_FAILED else {
            return nil
        }
        pages = UnsafeMutableRawBufferPointer(start: address, count: count)
        bytes = UnsafeMutableRawBufferPointer(rebasing: pages[(range.lowerBound - start)...])
    }

    deinit {
        munmap(pages.baseAddress, pages.count)
    }

    static let pageByteCount = Int(sysconf(CInt(_SC_PAGESIZE)))

    /// Gives the kernel a hint about the pages that hold `range` of `bytes`; a hint that fails changes nothing.
    func advise(_ advice: CInt, _ range: Range<Int>) {
        guard !range.isEmpty, let address = bytes.baseAddress else { return }
        let excess = Int(bitPattern: address + range.lowerBound) % FileMapping.pageByteCount
        madvise(address + range.lowerBound - excess, range.count + excess, advice)
    }
}

/// What `errno` says, in words.
func systemMessage(_ code: CInt) -> String {
    String(cString: strerror(code))
}
