import CLMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Walks every tree of an LMDB file before anything else does, with every number checked.
///
/// LMDB's pages have no checksums, and LMDB follows their numbers where they lead: a flipped bit in one of them ends the process, or has it
/// go in circles. What this check lets pass, LMDB can read and change without leaving the file. It does not see the keys' and values'
/// own bytes: those are for whoever stored them to check.
///
/// The file is read by `pread`, one page at a time: a page that cannot be read is an error, where touching the map would be a signal.
/// Layout of pages, in native byte order: a header of 16 bytes with the page's number at 0, flags at 10, and at 12 the end of the table of
/// node offsets behind it and at 14 the start of the nodes, which fill the page's end; or, on the first of a run of overflow pages, the
/// run's length at 12. A node has its size, or child page, in two 16-bit halves, then flags, key size and key.
struct TreeCheck {
    private let descriptor: Int32
    private let path: String
    private let pageSize: Int
    private let lastPage: UInt64
    private let transactionID: UInt64
    /// Pages that a tree or the free list has claimed.
    private var claimed: PageSet
    /// Memory for the leaf, and for the beginning of the overflow pages, that are being looked at.
    private let leaf: PageBuffer
    private let overflow: PageBuffer

    private enum Kind { static let branch: UInt16 = 1, leaf: UInt16 = 2, overflow: UInt16 = 4 }
    private enum NodeFlag { static let bigData: UInt16 = 1, tree: UInt16 = 2 }
    private static let headerSize = 16
    private static let nodeHeaderSize = 8
    /// LMDB's own bound to the height of a tree.
    private static let depthMax = 32

    // MARK: - Running it

    /// Checks the file as a reader that begins now sees it; others may go on writing.
    ///
    /// - Parameters:
    ///   - file: just opened.
    ///   - descriptor: of the file, too.
    /// - Throws: `LMDBError.Code.corrupted`.
    static func run(_ file: OpenFile, descriptor: Int32, path: String) throws {
        for _ in 0..<Environment.maxAttempts {
            // While this read lasts, no page that it can see is written to.
            let transaction = try begin(file, descriptor, path)
            defer { mdb_txn_abort(transaction) }
            // Meta pages are used in turn: that of this snapshot is overwritten by the commit after the next one.
            let id = UInt64(mdb_txn_id(transaction))
            guard let meta = try FileHeader.readBoth(descriptor, path: path)?.first(where: { $0.transactionID == id }) else {
                continue
            }
            var check = try TreeCheck(meta, descriptor: descriptor, path: path)
            try check.checkAll(meta)
            return
        }
        throw LMDBError(.corrupted, "\(path): no meta page has the snapshot that there is to read")
    }

    /// Begins to read, where others may have made the file grow since it was opened, or hold all reader slots for a moment.
    private static func begin(_ file: OpenFile, _ descriptor: Int32, _ path: String) throws -> OpaquePointer? {
        var waits = 0
        while true {
            var transaction: OpaquePointer?
            let code = try file.beginRead(&transaction)
            switch code {
            case MDB_MAP_RESIZED where waits < Environment.maxAttempts:
                guard let header = try FileHeader.read(descriptor, path: path) else { fallthrough }
                let size = max(header.mapSize, (Int(header.lastPage) + 1) * header.pageSize)
                try LMDBError.check(mdb_env_set_mapsize(file.handle, size), "growing the map of \(path)")
            case MDB_READERS_FULL where waits < Environment.maxWaits:
                if try file.clearStaleReaders(path) == 0 { usleep(1000) }
            default:
                try LMDBError.check(code, "beginning to read \(path)")
                return transaction
            }
            waits += 1
        }
    }

    private init(_ meta: FileHeader, descriptor: Int32, path: String) throws {
        self.descriptor = descriptor
        self.path = path
        pageSize = meta.pageSize
        lastPage = meta.lastPage
        transactionID = meta.transactionID
        claimed = PageSet(count: meta.lastPage + 1)
        leaf = PageBuffer(count: meta.pageSize)
        overflow = PageBuffer(count: meta.pageSize)
        claimed.insert(0)
        claimed.insert(1)
    }

    private mutating func checkAll(_ meta: FileHeader) throws {
        // The system may read ahead: all of it is wanted, in hardly any order.
        posix_fadvise(descriptor, 0, 0, POSIX_FADV_WILLNEED)
        try checkTree(meta.main, isFreeList: false)
        try checkTree(meta.free, isFreeList: true)
    }

    private func damaged(_ page: UInt64, _ what: String) -> LMDBError {
        LMDBError(.corrupted, "\(path): page \(page) is damaged: \(what)")
    }

    // MARK: - Trees

    /// What a tree is found to consist of.
    private struct Count: Equatable {
        var branches: UInt64 = 0
        var leaves: UInt64 = 0
        var overflow: UInt64 = 0
        var entries: UInt64 = 0
    }

    private mutating func checkTree(_ tree: TreeRecord, isFreeList: Bool) throws {
        var count = Count()
        if tree.root == .max {
            guard tree.depth == 0 else { throw damaged(0, "an empty tree has \(tree.depth) levels") }
        } else {
            guard (1...Self.depthMax).contains(tree.depth) else { throw damaged(tree.root, "its tree has \(tree.depth) levels") }
            try checkPage(tree.root, depth: tree.depth, isFreeList: isFreeList, count: &count)
        }
        let told = Count(
            branches: tree.branchPages, leaves: tree.leafPages, overflow: tree.overflowPages, entries: tree.entries)
        guard count == told else { throw damaged(tree.root, "its tree has other pages or entries than are counted") }
    }

    /// Checks a page and what lies below it.
    ///
    /// - Returns: its first and its last key, the first of a branch being that of its first leaf.
    @discardableResult
    private mutating func checkPage(
        _ number: UInt64, depth: Int, isFreeList: Bool, count: inout Count
    ) throws -> (first: [UInt8], last: [UInt8]) {
        try claim(number, 1, by: number)
        let isLeaf = depth == 1
        let page = isLeaf ? leaf : PageBuffer(count: pageSize)
        try read(number, into: page)
        guard page.load(0, UInt64.self) == number else { throw damaged(number, "it has another page's number") }
        guard page.load(10, UInt16.self) == (isLeaf ? Kind.leaf : Kind.branch) else {
            throw damaged(number, "it is not the kind of page that belongs there")
        }
        let nodes = try nodes(of: page, number, isLeaf: isLeaf)
        // LMDB takes it for granted that branches have two; those of the free list it lets have one.
        guard nodes.count >= (isLeaf || isFreeList ? 1 : 2) else { throw damaged(number, "it holds too little") }
        return isLeaf
            ? try checkLeaf(page, number, nodes, isFreeList: isFreeList, count: &count)
            : try checkBranch(page, number, nodes, depth: depth, isFreeList: isFreeList, count: &count)
    }

    private struct NodePlace {
        let offset: Int
        let keySize: Int

        var key: Range<Int> { offset + TreeCheck.nodeHeaderSize..<offset + TreeCheck.nodeHeaderSize + keySize }
    }

    /// Where the page's nodes lie: they must fill its end, without gaps and without covering each other.
    private func nodes(of page: PageBuffer, _ number: UInt64, isLeaf: Bool) throws -> [NodePlace] {
        let tableEnd = Int(page.load(12, UInt16.self))
        let start = Int(page.load(14, UInt16.self))
        guard tableEnd >= Self.headerSize, tableEnd % 2 == 0, tableEnd <= start, start <= pageSize else {
            throw damaged(number, "its free space lies nowhere")
        }
        var nodes: [NodePlace] = []
        var places: [Range<Int>] = []
        for entry in stride(from: Self.headerSize, to: tableEnd, by: 2) {
            let offset = Int(page.load(entry, UInt16.self))
            guard offset >= start, offset % 2 == 0, offset <= pageSize - Self.nodeHeaderSize else {
                throw damaged(number, "a node lies outside of it")
            }
            let keySize = Int(page.load(offset + 6, UInt16.self))
            guard keySize <= LMDBLimits.maxKeySize else { throw damaged(number, "a key is too long") }
            var size = Self.nodeHeaderSize + keySize
            if isLeaf {
                size += page.load(offset + 4, UInt16.self) & NodeFlag.bigData != 0 ? 8 : page.dataSize(offset)
            }
            size += size & 1
            guard size <= pageSize - offset else { throw damaged(number, "a node reaches beyond it") }
            nodes.append(NodePlace(offset: offset, keySize: keySize))
            places.append(offset..<offset + size)
        }
        places.sort { $0.lowerBound < $1.lowerBound }
        var end = start
        for place in places {
            guard place.lowerBound == end else { throw damaged(number, "its nodes do not lie one after the other") }
            end = place.upperBound
        }
        guard end == pageSize else { throw damaged(number, "its nodes do not fill its end") }
        return nodes
    }

    private mutating func checkBranch(
        _ page: PageBuffer, _ number: UInt64, _ nodes: [NodePlace], depth: Int, isFreeList: Bool, count: inout Count
    ) throws -> (first: [UInt8], last: [UInt8]) {
        count.branches += 1
        var ends: (first: [UInt8], last: [UInt8])?
        for node in nodes {
            let child =
                UInt64(page.load(node.offset, UInt16.self)) | UInt64(page.load(node.offset + 2, UInt16.self)) << 16
                | UInt64(page.load(node.offset + 4, UInt16.self)) << 32
            let found = try checkPage(child, depth: depth - 1, isFreeList: isFreeList, count: &count)
            if let last = ends?.last {
                // What leads to a child sorts behind all before it, and not behind any key in it.
                let separator = page[node.key]
                let isBetween = last.withUnsafeBytes { isAscending($0, separator, isFreeList) }
                guard isBetween, found.first.withUnsafeBytes({ !isAscending($0, separator, isFreeList) }) else {
                    throw damaged(number, "its keys lead to other pages")
                }
            }
            ends = (ends?.first ?? found.first, found.last)
        }
        guard let ends else { throw damaged(number, "it holds too little") }
        return ends
    }

    private mutating func checkLeaf(
        _ page: PageBuffer, _ number: UInt64, _ nodes: [NodePlace], isFreeList: Bool, count: inout Count
    ) throws -> (first: [UInt8], last: [UInt8]) {
        count.leaves += 1
        count.entries += UInt64(nodes.count)
        var subtrees: [TreeRecord] = []
        var overflow: UInt64 = 0
        var former: UnsafeRawBufferPointer?
        for node in nodes {
            let key = page[node.key]
            guard !key.isEmpty, former.map({ isAscending($0, key, isFreeList) }) ?? true else {
                throw damaged(number, "its keys are not in order")
            }
            former = key
            let flags = page.load(node.offset + 4, UInt16.self)
            let size = page.dataSize(node.offset)
            switch flags {
            case 0 where isFreeList:
                try checkFreePages(page, node.key.upperBound, size: size, freedBy: integer(of: key), number)
            case 0: break
            case NodeFlag.bigData:
                let first = page.load(node.key.upperBound, UInt64.self)
                overflow += try checkOverflow(
                    first, size: size, from: number, listsFreePages: isFreeList ? integer(of: key) : nil)
            case NodeFlag.tree where !isFreeList && size == TreeRecord.byteCount:
                subtrees.append(TreeRecord(page, at: node.key.upperBound))
            default: throw damaged(number, "a node has flags that none has")
            }
        }
        count.overflow += overflow
        let ends = (first: Array(page[nodes[0].key]), last: former.map { Array($0) } ?? [])
        // The page's memory is used again from here on.
        for tree in subtrees {
            guard tree.flags == 0 else {
                throw LMDBError(
                    .incompatible, "\(path): a database sorts or repeats its keys in a way that is not supported, or is damaged")
            }
            try checkTree(tree, isFreeList: false)
        }
        return ends
    }

    /// Checks a run of overflow pages: only its first one has a header.
    ///
    /// - Returns: the run's length in pages.
    private mutating func checkOverflow(
        _ first: UInt64, size: Int, from leaf: UInt64, listsFreePages key: UInt64?
    ) throws -> UInt64 {
        try claim(first, 1, by: leaf)
        try read(first, into: overflow)
        // A value that took the place of a longer one may have kept all of its pages.
        let pages = UInt64(overflow.load(12, UInt32.self))
        guard overflow.load(0, UInt64.self) == first, overflow.load(10, UInt16.self) == Kind.overflow,
            pages >= UInt64((Self.headerSize + size - 1) / pageSize + 1)
        else { throw damaged(first, "it does not begin the value that page \(leaf) says") }
        if pages > 1 { try claim(first + 1, pages - 1, by: first) }
        if let key {
            let value = try readBytes(
                descriptor, count: Self.headerSize + size, at: first * UInt64(pageSize), path: path)
            guard value.count == Self.headerSize + size else { throw damaged(first, "the file ends within it") }
            try checkFreePages(PageBuffer(value), Self.headerSize, size: size, freedBy: key, first)
        }
        return pages
    }

    /// Checks a value of the free list: a count, and as many page numbers, descending; pages that no tree has.
    private mutating func checkFreePages(
        _ bytes: PageBuffer, _ offset: Int, size: Int, freedBy transaction: UInt64, _ number: UInt64
    ) throws {
        guard transaction <= transactionID else { throw damaged(number, "it frees pages of a later write") }
        guard size >= 8 else { throw damaged(number, "a list of free pages is too short") }
        let count = bytes.load(offset, UInt64.self)
        guard count <= UInt64(size / 8 - 1) else { throw damaged(number, "a list of free pages is too short") }
        var former = UInt64.max
        for index in 0..<Int(count) {
            let page = bytes.load(offset + 8 + 8 * index, UInt64.self)
            guard page < former else { throw damaged(number, "free pages are not in order") }
            try claim(page, 1, by: number)
            former = page
        }
    }

    // MARK: - Details

    /// Each page is part of one thing.
    private mutating func claim(_ first: UInt64, _ count: UInt64, by page: UInt64) throws {
        guard first <= lastPage, count <= lastPage - first + 1 else { throw damaged(page, "it leads beyond the file") }
        for number in first..<first + count {
            guard claimed.insert(number) else { throw damaged(page, "it leads to page \(number), which is in use elsewhere") }
        }
    }

    private func read(_ number: UInt64, into page: PageBuffer) throws {
        guard try page.fill(descriptor, at: number * UInt64(pageSize), path: path) else {
            throw damaged(number, "the file ends before it")
        }
    }

    private func isAscending(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer, _ isFreeList: Bool) -> Bool {
        guard isFreeList else { return compareBytes(left, right) < 0 }
        return left.count == 8 && right.count == 8 && integer(left) < integer(right)
    }

    private func integer(_ key: UnsafeRawBufferPointer) -> UInt64 { key.loadUnaligned(as: UInt64.self) }

    /// A key of the free list as the number of a transaction; one of any other length as one that is yet to come.
    private func integer(of key: UnsafeRawBufferPointer) -> UInt64 { key.count == 8 ? integer(key) : .max }
}

// MARK: - What it reads

/// What a meta page says of a tree.
struct TreeRecord: Equatable {
    let flags: UInt16
    let depth: Int
    let branchPages: UInt64
    let leafPages: UInt64
    let overflowPages: UInt64
    let entries: UInt64
    /// ~0 where there is none.
    let root: UInt64

    static let byteCount = 48

    init(_ bytes: PageBuffer, at offset: Int) {
        flags = bytes.load(offset + 4, UInt16.self)
        depth = Int(bytes.load(offset + 6, UInt16.self))
        branchPages = bytes.load(offset + 8, UInt64.self)
        leafPages = bytes.load(offset + 16, UInt64.self)
        overflowPages = bytes.load(offset + 24, UInt64.self)
        entries = bytes.load(offset + 32, UInt64.self)
        root = bytes.load(offset + 40, UInt64.self)
    }
}

/// Memory for a page, or for a value, of a file.
final class PageBuffer {
    private let memory: UnsafeMutableRawBufferPointer

    init(count: Int) { memory = .allocate(byteCount: count, alignment: 16) }

    init(_ bytes: [UInt8]) {
        memory = .allocate(byteCount: bytes.count, alignment: 16)
        memory.copyBytes(from: bytes)
    }

    deinit { memory.deallocate() }

    /// - Returns: false where the file ends within the page.
    func fill(_ descriptor: Int32, at offset: UInt64, path: String) throws -> Bool {
        guard let start = off_t(exactly: offset) else { return false }
        var filled = 0
        while filled < memory.count {
            let got = pread(
                descriptor, memory.baseAddress.map { $0 + filled }, memory.count - filled, start + off_t(filled))
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw LMDBError.fromErrno("reading \(path)") }
            if got == 0 { return false }
            filled += got
        }
        return true
    }

    /// Unchecked: whoever asks has made sure that the place lies within the memory.
    func load<Integer: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: Integer.Type) -> Integer {
        precondition(offset >= 0 && offset <= memory.count - MemoryLayout<Integer>.size, "a page was not checked")
        return memory.loadUnaligned(fromByteOffset: offset, as: type)
    }

    /// Valid until the memory is filled anew.
    subscript(range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[range]) }

    /// The size of a leaf node's value.
    func dataSize(_ offset: Int) -> Int {
        Int(load(offset, UInt16.self)) | Int(load(offset + 2, UInt16.self)) << 16
    }
}

/// A set of page numbers, a bit each.
private struct PageSet {
    private var words: [UInt64]

    init(count: UInt64) { words = Array(repeating: 0, count: Int(count / 64 + 1)) }

    /// - Returns: whether it was not in the set before.
    @discardableResult
    mutating func insert(_ number: UInt64) -> Bool {
        let (word, bit) = (Int(number / 64), UInt64(1) << (number % 64))
        guard words[word] & bit == 0 else { return false }
        words[word] |= bit
        return true
    }
}
