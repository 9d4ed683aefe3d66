#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A folder of its own for a store.
struct TemporaryStore {
    private let folder: String
    var path: String { folder + "/store" }

    init(in folder: String) throws {
        var template = Array("\(folder)/reelkv-crash-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw CrashRun.Fault(description: "no folder can be made in \(folder)") }
        self.folder = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
    }

    func remove() { Self.removeTree(folder) }

    static func removeTree(_ path: String) {
        if let folder = opendir(path) {
            defer { closedir(folder) }
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { removeTree(path + "/" + name) }
            }
        }
        if unlink(path) != 0 { rmdir(path) }
    }
}
