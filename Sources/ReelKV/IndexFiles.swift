import LMDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The index's files, where no index opens.
enum IndexFiles {
    /// Stands in the name of an index, or a volume, that was damaged and is kept: `index.mdb.damaged-1764144000`.
    static let damagedInfix = ".damaged-"

    static func damagedName(_ name: String) -> String { name + damagedInfix + String(Platform.unixSeconds()) }

    /// The index that cannot be opened as a store's, if its records can be read all the same.
    static func former(in folder: String, keyRing: KeyRing) throws -> Index? {
        guard Index.files.newest(among: try Platform.list(folder)) != nil else { return nil }
        return try? Index(at: folder + "/" + Index.fileName, readOnly: true, creating: false, keyRing: keyRing)
    }

    /// Puts a file that `make` makes in the place of the newest index. That one is kept under another name.
    static func replace<R>(in folder: String, with make: (_ path: String) throws -> R) throws -> R {
        let current = Index.files.newest(among: try Platform.list(folder))
        let name = Index.files.name(of: (current ?? 0) + 1)
        let unfinished = folder + "/" + name + FileGenerations.unfinishedSuffix
        for path in [unfinished, unfinished + "-lock"] { try Platform.remove(path) }
        let result: R
        do {
            result = try make(unfinished)
            try Platform.remove(unfinished + "-lock")
            // a lock file that another index had says nothing true of this one
            try Platform.remove(folder + "/" + name + "-lock")
            if let current {
                let former = folder + "/" + Index.files.name(of: current)
                guard link(former, damagedName(former)) == 0 || errno == EEXIST else {
                    throw StoreError.system("cannot keep \(former)")
                }
            }
            try Platform.rename(unfinished, to: folder + "/" + name)
        } catch {
            for path in [unfinished, unfinished + "-lock"] { try? Platform.remove(path) }
            throw error
        }
        Platform.synchronizeDirectory(folder)
        if let current {
            let former = folder + "/" + Index.files.name(of: current)
            for path in [former, former + "-lock"] { try Platform.remove(path) }
        }
        return result
    }
}
