import KVCodec

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// What the disk may hold of a folder that a process changes: its files, and the names they go by.
struct TornFolder {
    private enum Entry {
        case file(UInt64)
        case folder
    }

    /// Names that change together: what each leads to afterwards, nil where it is gone.
    private typealias NameChange = [String: Entry?]

    private struct Names {
        var flushed: [String: Entry] = [:]
        var changes: [NameChange] = []

        var live: [String: Entry] { Self.apply(changes, to: flushed) }

        static func apply(_ changes: [NameChange], to names: [String: Entry]) -> [String: Entry] {
            changes.reduce(into: names) { names, change in
                for (name, entry) in change { names[name] = entry }
            }
        }

        /// What a crash leaves: all changes since the last flush, none, the first ones, or any.
        func torn(_ random: inout SplitMix64) -> [String: Entry] {
            let strategy = random.next() % 4
            let bound = changes.isEmpty ? 0 : random.next() % UInt64(changes.count)
            let kept = changes.enumerated().filter { place, _ in
                switch strategy {
                case 0: true
                case 1: false
                case 2: UInt64(place) < bound
                default: random.next() % 2 == 0
                }
            }
            return Self.apply(kept.map(\.element), to: flushed)
        }
    }

    private let path: String
    private var folders: [String: Names] = [:]
    private var files: [UInt64: TornFile] = [:]

    /// What lies in a folder now, all of it on the disk.
    init(of path: String) throws {
        self.path = path
        try read(path)
    }

    private mutating func read(_ folder: String) throws {
        var names = Names()
        for name in try Self.names(in: folder) {
            let path = folder + "/" + name
            var status = stat()
            guard lstat(path, &status) == 0 else { throw CrashRun.Fault(description: "\(path) is gone") }
            if status.st_mode & S_IFMT == S_IFDIR {
                names.flushed[name] = .folder
                try read(path)
            } else {
                let number = UInt64(status.st_ino)
                names.flushed[name] = .file(number)
                files[number] = TornFile(Recording.read(path) ?? [])
            }
        }
        folders[folder] = names
    }

    static func names(in path: String) throws -> [String] {
        guard let folder = opendir(path) else { throw CrashRun.Fault(description: "cannot list \(path)") }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    // MARK: - Changes

    mutating func apply(_ change: Recording.Change, of recording: Recording) throws {
        switch change {
        case .said: break
        case .made(let path, let file):
            files[file] = TornFile()
            try rename([path: .file(file)])
        case .folderMade(let path):
            folders[path] = Names()
            try rename([path: .folder])
        case .written(let file, let offset, let bytes, let isDurable):
            files[file]?.write(Array(recording.bytes[bytes]), at: offset, isDurable: isDurable)
        case .flushed(let file): files[file]?.flush()
        case .folderFlushed(let path):
            guard let names = folders[path] else { throw CrashRun.Fault(description: "\(path) is not known") }
            folders[path] = Names(flushed: names.live)
        case .resized(let file, let length): files[file]?.resize(to: length)
        case .renamed(let path, let other): try rename([path: nil, other: try entry(path)])
        case .linked(let path, let other): try rename([other: try entry(path)])
        case .removed(let path): try rename([path: nil])
        }
    }

    /// Paths in one folder.
    private mutating func rename(_ paths: [String: Entry?]) throws {
        let parts = paths.map { (Self.parts(of: $0.key), $0.value) }
        let parents = Set(parts.map { $0.0.folder })
        guard let folder = parents.first, parents.count == 1, folders[folder] != nil else {
            throw CrashRun.Fault(description: "\(paths.keys.sorted()) are not in one folder that is known")
        }
        folders[folder]?.changes.append(NameChange(uniqueKeysWithValues: parts.map { ($0.0.name, $0.1) }))
    }

    private func entry(_ path: String) throws -> Entry {
        let parts = Self.parts(of: path)
        guard let entry = folders[parts.folder]?.live[parts.name] else {
            throw CrashRun.Fault(description: "\(path) is not known")
        }
        return entry
    }

    private static func parts(of path: String) -> (folder: String, name: String) {
        let slash = path.lastIndex(of: "/") ?? path.startIndex
        return (String(path[..<slash]), String(path[path.index(after: slash)...]))
    }

    // MARK: - A crash

    /// Makes a folder of what a crash of the machine leaves of this one.
    func rebuild(at other: String, _ random: inout SplitMix64) throws {
        let strategies = TornFile.Strategy.allCases
        let one = Int(random.next() % UInt64(strategies.count + 1))
        try rebuild(path, at: other, &random) { random in
            one < strategies.count ? strategies[one] : strategies[Int(random.next() % UInt64(strategies.count))]
        }
    }

    private func rebuild(
        _ folder: String, at other: String, _ random: inout SplitMix64, _ strategy: (inout SplitMix64) -> TornFile.Strategy
    ) throws {
        guard mkdir(other, 0o700) == 0, let names = folders[folder] else {
            throw CrashRun.Fault(description: "cannot make \(other)")
        }
        for (name, entry) in names.torn(&random).sorted(by: { $0.key < $1.key }) {
            let path = other + "/" + name
            switch entry {
            case .folder: try rebuild(folder + "/" + name, at: path, &random, strategy)
            case .file(let number):
                var bytes = files[number]?.torn(strategy(&random), &random) ?? []
                // It was written through a map, so the disk may have any of it.
                if name.hasSuffix("-lock") { Self.tear(&bytes, &random) }
                try Recording.write(bytes, to: path)
            }
        }
    }

    /// Pages of anything, of zeros, or a file that has none.
    private static func tear(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
        switch random.next() % 4 {
        case 0: bytes = []
        case 1: bytes = [UInt8](repeating: 0, count: max(bytes.count, 8192))
        case 2: for place in bytes.indices where place % 8 == 0 { bytes[place] = UInt8(truncatingIfNeeded: random.next()) }
        default: break
        }
    }
}
