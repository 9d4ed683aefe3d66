#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What the two meta pages at the start of an LMDB 0.9 file say, checked before LMDB maps the file.
///
/// LMDB maps what the meta pages promise and touches it unchecked, so a file that was cut short kills the process with SIGBUS
/// some time later. Here it is found out at once. Layout (native byte order): a 16-byte page header with flags at 10, then magic
/// at 16, version at 20, map size at 32, the records of the free list and the main database at 40 and 88, last page at 136,
/// number of the transaction at 144. The page size stands in the free list's record.
struct FileHeader: Equatable {
    let pageSize: Int
    let mapSize: Int
    let lastPage: UInt64
    let transactionID: UInt64
    let free: TreeRecord
    let main: TreeRecord

    static let size = 152
    private static let magic: UInt32 = 0xbeef_c0de
    private static let version: UInt32 = 1

    /// The newer of the two meta pages; nil for an empty file, which is one that LMDB has yet to fill.
    static func read(_ descriptor: Int32, path: String) throws -> FileHeader? {
        try readBoth(descriptor, path: path)?.max { $0.transactionID < $1.transactionID }
    }

    /// Both meta pages; nil for an empty file.
    static func readBoth(_ descriptor: Int32, path: String) throws -> [FileHeader]? {
        let first = try readBytes(descriptor, count: size, at: 0, path: path)
        if first.isEmpty { return nil }
        let one = try FileHeader(metaPage: first, number: 0, path: path)
        let second = try readBytes(descriptor, count: size, at: UInt64(one.pageSize), path: path)
        let other = try FileHeader(metaPage: second, number: 1, path: path)
        guard other.pageSize == one.pageSize else {
            throw LMDBError(.invalid, "\(path): its two meta pages differ in the size of pages: one of them is damaged")
        }
        return [one, other]
    }

    private init(metaPage bytes: [UInt8], number page: UInt64, path: String) throws {
        guard bytes.count == Self.size else {
            throw LMDBError(.invalid, "\(path) ends within its meta pages: it was cut short, or is no LMDB file")
        }
        func number<T: FixedWidthInteger>(at offset: Int, as type: T.Type) -> T {
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
        }
        let isMeta = number(at: 10, as: UInt16.self) == 0x08 && number(at: 0, as: UInt64.self) == page
        let magic = number(at: 16, as: UInt32.self)
        guard isMeta, magic == Self.magic else {
            let isSwapped = magic.byteSwapped == Self.magic
            throw LMDBError(
                .invalid,
                "\(path) is no LMDB file\(isSwapped ? " of this machine's byte order" : ""), or its meta pages are damaged")
        }
        let version = number(at: 20, as: UInt32.self)
        guard version == Self.version else {
            throw LMDBError(.versionMismatch, "\(path) has LMDB data format \(version); this library reads \(Self.version)")
        }
        let pageSize = Int(number(at: 40, as: UInt32.self))
        guard pageSize >= 256, pageSize <= 65_536, pageSize & (pageSize - 1) == 0 else {
            throw LMDBError(.invalid, "\(path) claims pages of \(pageSize) bytes: its meta pages are damaged")
        }
        lastPage = number(at: 136, as: UInt64.self)
        guard lastPage >= 1, lastPage < UInt64(Int.max / pageSize) else {
            throw LMDBError(.invalid, "\(path) claims \(lastPage) pages: its meta pages are damaged")
        }
        self.pageSize = pageSize
        mapSize = Int(clamping: number(at: 32, as: UInt64.self))
        transactionID = number(at: 144, as: UInt64.self)
        let buffer = PageBuffer(bytes)
        free = TreeRecord(buffer, at: 40)
        main = TreeRecord(buffer, at: 88)
        // What LMDB's own file flags are kept among; with any others it would map the file elsewhere, or read keys in another way.
        guard free.flags & ~Self.noFolderFlag == Self.integerKeysFlag, main.flags == 0 else {
            throw LMDBError(.invalid, "\(path) claims to be of another kind: its meta pages are damaged")
        }
    }

    private static let integerKeysFlag: UInt16 = 0x08
    private static let noFolderFlag: UInt16 = 0x4000

    /// Makes sure that the file has all the pages that are in use.
    ///
    /// Another process may be writing meanwhile. It writes pages before the meta page that counts them, so a file that looks too
    /// short has been cut, or its meta page was read while it changed: what matters is whether it looks so twice.
    static func validate(_ descriptor: Int32, path: String) throws -> FileHeader? {
        var failure: (any Error)?
        for attempt in 0..<3 {
            if attempt > 0 { usleep(5000) }
            do {
                guard let header = try read(descriptor, path: path) else { return nil }
                try header.checkLength(descriptor, path: path)
                return header
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return nil
    }

    private func checkLength(_ descriptor: Int32, path: String) throws {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw LMDBError.fromErrno("looking at \(path)") }
        let pageCount = UInt64(max(status.st_size, 0)) / UInt64(pageSize)
        guard pageCount <= lastPage else { return }
        // Pages that one transaction took at the end of the file and gave back are counted and listed as free, but never written.
        let freePages = FreeList(descriptor: descriptor, path: path, pageSize: pageSize, pageCount: pageCount)
        let missing = lastPage - pageCount + 1
        guard try freePages.count(from: pageCount, through: lastPage, root: free.root, depth: free.depth) == missing else {
            throw LMDBError(.invalid, "\(path) was cut short: it has \(pageCount) pages where \(lastPage + 1) are in use")
        }
    }
}
