extension Environment {
    /// How to open an environment. The same file opened again in one process takes the same configuration.
    public struct Configuration: Hashable, Sendable {
        /// What a commit waits for.
        public enum Durability: Hashable, Sendable {
            /// Data and root are on the device when a write returns.
            case durable
            /// The root reaches the device with the next commit or ``Environment/sync()`` (`MDB_NOMETASYNC`): half the flushes. A
            /// crash of the machine may undo the last commit, whole; it cannot damage the file. The variants of LMDB that can
            /// (`MDB_NOSYNC`, `MDB_MAPASYNC`) are not offered.
            case relaxed
        }

        /// The size of the memory map in bytes, rounded up to pages: the size that the file can have. It costs address space
        /// only. A file that is larger already gets what it needs, and so, with ``growsMap``, does one whose other users have
        /// a larger map.
        public var mapSize = 1 << 30

        /// The largest map that growth leads to, in bytes.
        public var maxMapSize = 1 << 40

        /// Whether a write that fills the map makes it larger and runs again, up to ``maxMapSize``.
        public var growsMap = true

        /// How many named databases can be open. Each costs every transaction some bytes, so this is no place for thousands.
        public var maxDatabases = 16

        /// How many readers there can be at once, in all processes together. The first process to open the file decides.
        public var maxReaders = 126

        /// Whether writes are refused. The file must exist.
        public var isReadOnly = false

        /// Whether ``Environment/shrink()`` may put a smaller file in this one's place (see ``FileGenerations``). All who open the file,
        /// in any process, must say the same. Each transaction then looks whether that has happened: two system calls.
        public var allowsSuccessors = false

        /// Whether to take part in locking. Without (`MDB_NOLOCK`) there is neither a lock file nor a limit to readers, and
        /// nothing protects a reader from a writer: for read-only use of files that nobody writes any more.
        public var usesLocks = true

        public var durability = Durability.durable

        /// Whether commits wait for nothing at all (`MDB_NOSYNC`): for files that are thrown away. A crash may leave them damaged.
        package var isScratch = false

        /// Whether page faults read ahead. Without (`MDB_NORDAHEAD`) random reads of files larger than memory waste less, and
        /// ranges want ``Environment/adviseWillNeed(_:)``.
        public var readAhead = true

        /// The permissions of files that opening creates, before the process's umask.
        public var fileMode: UInt32 = 0o600

        public init() {}
    }
}

extension Environment.Configuration {
    /// - Throws: ``LMDBError/Code/invalidArgument`` for settings that make no sense, saying which.
    func validate() throws {
        func require(_ condition: Bool, _ problem: @autoclosure () -> String) throws {
            if !condition { throw LMDBError(.invalidArgument, "configuration: \(problem())") }
        }
        try require(mapSize > 0, "mapSize is \(mapSize)")
        try require(maxMapSize <= Int.max / 2, "maxMapSize is \(maxMapSize)")
        try require(mapSize <= maxMapSize, "mapSize \(mapSize) exceeds maxMapSize \(maxMapSize)")
        try require((0...65_535).contains(maxDatabases), "maxDatabases is \(maxDatabases); 0 to 65535 are possible")
        try require((1...65_535).contains(maxReaders), "maxReaders is \(maxReaders); 1 to 65535 are possible")
        try require(fileMode <= 0o777, "fileMode is 0o\(String(fileMode, radix: 8))")
        try require(usesLocks || isReadOnly, "only a read-only environment can do without locks")
    }

    /// The names of the settings in which two configurations differ.
    func differences(from other: Self) -> [String] {
        var names: [String] = []
        func compare(_ name: String, _ path: KeyPath<Self, some Equatable>) {
            if self[keyPath: path] != other[keyPath: path] { names.append(name) }
        }
        compare("mapSize", \.mapSize)
        compare("maxMapSize", \.maxMapSize)
        compare("growsMap", \.growsMap)
        compare("maxDatabases", \.maxDatabases)
        compare("maxReaders", \.maxReaders)
        compare("isReadOnly", \.isReadOnly)
        compare("allowsSuccessors", \.allowsSuccessors)
        compare("usesLocks", \.usesLocks)
        compare("durability", \.durability)
        compare("isScratch", \.isScratch)
        compare("readAhead", \.readAhead)
        compare("fileMode", \.fileMode)
        return names
    }
}
