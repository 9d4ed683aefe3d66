import CLMDB

/// Figures about an environment as of the moment they were asked for.
public struct EnvironmentInformation: Hashable, Sendable {
    /// The size of this process's memory map in bytes.
    public let mapSize: Int
    /// The bytes up to the last page that was ever used. The free pages among them are used again before the file grows.
    public let usedBytes: Int
    /// The size of LMDB's pages in bytes.
    public let pageSize: Int
    /// The slots of the reader table.
    public let maxReaders: Int
    /// The slots taken, in all processes: by running readers, by ended ones kept for reuse, and by stale ones.
    public let readersInUse: Int
    /// The number of the last committed write. A successor's writes count from 1 again.
    public let lastTransactionID: Int
}

extension Environment {
    /// Figures about the environment. All are zero in a forked child and once the map is lost.
    public var information: EnvironmentInformation {
        guard (try? checkProcess()) != nil, let file = try? currentFile(), let slot = try? file.readers.enter() else {
            return EnvironmentInformation(
                mapSize: 0, usedBytes: 0, pageSize: 0, maxReaders: 0, readersInUse: 0, lastTransactionID: 0)
        }
        defer { file.readers.leave(slot) }
        let info = file.mapInfo()
        var statistics = MDB_stat()
        mdb_env_stat(file.handle, &statistics)
        let pageSize = Int(statistics.ms_psize)
        return EnvironmentInformation(
            mapSize: Int(info.me_mapsize), usedBytes: (Int(info.me_last_pgno) + 1) * pageSize, pageSize: pageSize,
            maxReaders: file.maxReaders, readersInUse: countReaders(of: file), lastTransactionID: Int(info.me_last_txnid))
    }

    /// LMDB itself tells only how many slots were ever used, but it lists those in use: a line each, which begins with the
    /// process, after a heading or instead of it a remark in parentheses.
    private func countReaders(of file: EnvironmentFile) -> Int {
        var count = 0
        withUnsafeMutablePointer(to: &count) { count in
            _ = mdb_reader_list(
                file.handle,
                { line, context in
                    let line = line.map { String(cString: $0) } ?? ""
                    let isReader = line.first { $0 != " " }?.isNumber ?? false
                    if isReader { context?.assumingMemoryBound(to: Int.self).pointee += 1 }
                    return 0
                }, count)
        }
        return count
    }
}
