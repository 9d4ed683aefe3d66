/// Reads the free list of an LMDB file, a B-tree like any other, by `pread`: before the file is mapped, every number checked.
///
/// Pages begin with a 16-byte header: flags at 10, and at 12 the end of the table of node offsets that follows the header. A node
/// has its size or child page in two 16-bit halves, then flags, key size and key. A value is a count and as many page numbers.
struct FreeList {
    let descriptor: Int32
    let path: String
    let pageSize: Int
    /// How many whole pages the file has.
    let pageCount: UInt64

    private static let branchPage: UInt16 = 0x01
    private static let leafPage: UInt16 = 0x02
    private static let overflowPage: UInt16 = 0x04
    private static let bigData: UInt16 = 0x01
    private static let headerSize = 16
    private static let nodeHeaderSize = 8
    /// LMDB's own bound to the height of a tree.
    private static let maxDepth = 32

    /// How many different pages of a range are listed as free.
    func count(from first: UInt64, through last: UInt64, root: UInt64, depth: Int) throws -> UInt64 {
        guard root != .max else { return 0 }
        guard depth <= Self.maxDepth else { throw damaged }
        var found: Set<UInt64> = []
        var pagesLeft = pageCount
        try visit(root, depth: depth, pagesLeft: &pagesLeft) { page in
            if page >= first && page <= last { found.insert(page) }
        }
        return UInt64(found.count)
    }

    private var damaged: LMDBError {
        LMDBError(.invalid, "\(path) was cut short, or the list of its free pages is damaged")
    }

    private func visit(_ number: UInt64, depth: Int, pagesLeft: inout UInt64, _ report: (UInt64) -> Void) throws {
        // A damaged tree could lead in circles: no more pages than there are, and no deeper than it says.
        guard depth > 0, pagesLeft > 0 else { throw damaged }
        pagesLeft -= 1
        let page = try readPage(number)
        let flags = try page.number(at: 10, as: UInt16.self)
        let tableEnd = Int(try page.number(at: 12, as: UInt16.self))
        guard tableEnd >= Self.headerSize, tableEnd <= pageSize else { throw damaged }
        for entry in stride(from: Self.headerSize, to: tableEnd - 1, by: 2) {
            let node = Int(try page.number(at: entry, as: UInt16.self))
            let low = UInt64(try page.number(at: node, as: UInt16.self))
            let high = UInt64(try page.number(at: node + 2, as: UInt16.self))
            let nodeFlags = try page.number(at: node + 4, as: UInt16.self)
            let keySize = Int(try page.number(at: node + 6, as: UInt16.self))
            if flags & Self.branchPage != 0 {
                try visit(low | high << 16 | UInt64(nodeFlags) << 32, depth: depth - 1, pagesLeft: &pagesLeft, report)
            } else if flags & Self.leafPage != 0 {
                let size = Int(low | high << 16)
                let value = node + Self.nodeHeaderSize + keySize
                try list(page, at: value, size: size, isOverflow: nodeFlags & Self.bigData != 0, report)
            } else {
                throw damaged
            }
        }
    }

    /// Reports the page numbers of one value, which lies in the leaf itself or on overflow pages that the leaf names.
    private func list(
        _ leaf: CheckedBytes, at offset: Int, size: Int, isOverflow: Bool, _ report: (UInt64) -> Void
    ) throws {
        var bytes = leaf
        var start = offset
        if isOverflow {
            let number = try leaf.number(at: offset, as: UInt64.self)
            let length = UInt64(Self.headerSize + size)
            guard number < pageCount, length <= (pageCount - number) * UInt64(pageSize) else { throw damaged }
            bytes = try read(number, count: Int(length))
            guard try bytes.number(at: 10, as: UInt16.self) & Self.overflowPage != 0 else { throw damaged }
            start = Self.headerSize
        }
        let count = try bytes.number(at: start, as: UInt64.self)
        guard size >= 8, count <= UInt64(size / 8 - 1) else { throw damaged }
        for index in 0..<Int(count) {
            report(try bytes.number(at: start + 8 + 8 * index, as: UInt64.self))
        }
    }

    private func readPage(_ number: UInt64) throws -> CheckedBytes {
        guard number < pageCount else { throw damaged }
        return try read(number, count: pageSize)
    }

    private func read(_ number: UInt64, count: Int) throws -> CheckedBytes {
        let bytes = try readBytes(descriptor, count: count, at: number * UInt64(pageSize), path: path)
        return CheckedBytes(bytes: bytes, failure: damaged)
    }
}

/// Bytes whose numbers are read with the bounds checked.
private struct CheckedBytes {
    let bytes: [UInt8]
    let failure: LMDBError

    func number<T: FixedWidthInteger>(at offset: Int, as type: T.Type) throws -> T {
        guard offset >= 0, offset <= bytes.count - MemoryLayout<T>.size else { throw failure }
        return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
}
