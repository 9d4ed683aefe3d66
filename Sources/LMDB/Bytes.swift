#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// LMDB's order of keys: byte by byte as unsigned numbers, a prefix before what it begins. Negative, zero or positive.
@usableFromInline
func compareBytes(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> Int {
    if let a = first.baseAddress, let b = second.baseAddress {
        let order = memcmp(a, b, min(first.count, second.count))
        if order != 0 { return Int(order) }
    }
    return first.count - second.count
}

@usableFromInline
@inline(never)
func badKeySize(_ count: Int) -> LMDBError {
    LMDBError(.badValueSize, "a key has \(count) bytes; keys have 1 to \(LMDBLimits.maxKeySize)")
}

extension Environment {
    /// Asks the system to read the pages under `bytes`, a stretch of a stored value, into memory ahead of their use.
    ///
    /// Touching cold pages one by one costs a disk access each; asking for the whole range ahead lets the system read it in large
    /// pieces while the caller does other work. It is advice: it changes nothing that can be seen, and failing is not an error.
    public static func adviseWillNeed(_ bytes: UnsafeRawBufferPointer) {
        guard let pages = systemPages(under: bytes) else { return }
        _ = madvise(pages.start, pages.length, MADV_WILLNEED)
    }

    /// Tells the system that the pages under `bytes`, a stretch of a stored value, will not be used soon, so that they make room before
    /// others do. It is advice, where the system takes it.
    public static func adviseCold(_ bytes: UnsafeRawBufferPointer) {
        #if os(Linux)
            guard let pages = systemPages(under: bytes) else { return }
            // MADV_COLD, of Linux 5.4, which older headers lack
            _ = madvise(pages.start, pages.length, 20)
        #endif
    }

    /// Whether all the pages under `bytes`, a stretch of a stored value, are in memory. Where the system does not tell, they are not.
    public static func isInMemory(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let pages = systemPages(under: bytes) else { return true }
        let count = pages.length / systemPageSize
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: count) { resident in
            mincore(pages.start, pages.length, resident.baseAddress) == 0 && resident.allSatisfy { $0 & 1 == 1 }
        }
    }

    /// Brings all the pages under `bytes`, a stretch of a stored value, into memory: for who is about to read them. What a disk does not
    /// give, or a file that was cut short does not have, is an error here, and a signal that ends the process where it is touched.
    ///
    /// Where the system cannot do that (before Linux 5.14), nothing happens.
    ///
    /// - Throws: ``LMDBError/Code/inputOutput``.
    public static func bringIn(_ bytes: UnsafeRawBufferPointer) throws {
        #if os(Linux)
            guard let pages = systemPages(under: bytes) else { return }
            var result: Int32
            repeat { result = madvise(pages.start, pages.length, populateRead) } while result != 0 && errno == EINTR
            guard result != 0, [EFAULT, EIO, EHWPOISON].contains(errno) else { return }
            throw LMDBError(
                .inputOutput, "reading \(bytes.count) bytes of a file that is mapped: the disk fails, or the file was cut short")
        #endif
    }

    #if os(Linux)
        /// MADV_POPULATE_READ
        private static let populateRead: Int32 = 22
    #endif

    private static func systemPages(
        under bytes: UnsafeRawBufferPointer
    ) -> (start: UnsafeMutableRawPointer, length: Int)? {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return nil }
        let offset = Int(bitPattern: base) & (systemPageSize - 1)
        let length = (offset + bytes.count + systemPageSize - 1) & ~(systemPageSize - 1)
        return (UnsafeMutableRawPointer(mutating: base - offset), length)
    }
}
