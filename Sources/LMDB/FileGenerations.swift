/// The names of the files that an environment with successors has in its folder.
///
/// Generation 1 is the file that the environment is named for, `index.mdb`; its successors are `index.2.mdb`, `index.3.mdb`, and so
/// on. Each has a lock file of its own, as LMDB names it (`index.2.mdb-lock`): one lock file never serves two files.
public struct FileGenerations: Hashable, Sendable {
    /// The name of generation 1.
    public let first: String
    /// `first` up to its extension, and the extension with its dot.
    private let stem: [UInt8]
    private let suffix: [UInt8]

    static let lockSuffix = "-lock"
    /// What a copy goes by until it is complete.
    package static let unfinishedSuffix = "-new"

    /// - Parameter first: the name of generation 1, without its folder.
    public init(first: String) {
        self.first = first
        let bytes = Array(first.utf8)
        let dot = bytes.lastIndex(of: UInt8(ascii: ".")).flatMap { $0 > 0 ? $0 : nil } ?? bytes.count
        stem = Array(bytes[..<dot])
        suffix = Array(bytes[dot...])
    }

    /// The name of a generation's file.
    public func name(of generation: Int) -> String {
        guard generation > 1 else { return first }
        return String(decoding: stem + Array(".\(generation)".utf8) + suffix, as: UTF8.self)
    }

    /// The generation whose file has this name; nil for any other name, those of lock files among them.
    public func generation(of name: String) -> Int? {
        if name == first { return 1 }
        let bytes = Array(name.utf8)
        guard bytes.count > stem.count + suffix.count, bytes.starts(with: stem), bytes.suffix(suffix.count) == suffix[...]
        else { return nil }
        let middle = String(decoding: bytes[stem.count..<bytes.count - suffix.count], as: UTF8.self)
        guard let number = Int(middle.dropFirst()), number > 1, middle == ".\(number)" else { return nil }
        return number
    }

    /// The newest of the generations whose files are among `names`, which is the current one; nil where there is none.
    public func newest(among names: [String]) -> Int? {
        names.compactMap(generation).max()
    }

    /// Whether a file of this name belongs to the environment: a generation, its lock file, or a copy that was not completed.
    public func owns(_ name: String) -> Bool { companion(name) != nil }

    /// What whoever has put `current` in its predecessor's place may remove: all that is older. Others may have followed, and be at work on
    /// what comes after it, or have that in use.
    ///
    /// Older generations come first, and a file before its lock file: one that sleeps in an old file sees by the file after it that it is
    /// old.
    package func predecessors(of current: Int, among names: [String]) -> [String] {
        names.compactMap { name in companion(name).map { (generation: $0, name: name) } }
            .filter { $0.generation < current }
            .sorted { ($0.generation, $0.name) < ($1.generation, $1.name) }.map(\.name)
    }

    /// What whoever has the write lock of `current`, which has no successor, may remove: its predecessors, and what somebody has begun of a
    /// copy and not completed.
    package func obsolete(beside current: Int, among names: [String]) -> [String] {
        let unfinished = names.filter { name in
            guard let generation = companion(name) else { return false }
            return generation > current && self.generation(of: name) == nil
                || generation == current && name.contains(Self.unfinishedSuffix)
        }
        return predecessors(of: current, among: names) + unfinished.sorted()
    }

    /// The generation that a file belongs to; nil for one that is none of the environment's.
    func companion(_ name: String) -> Int? {
        var name = name
        // a copy that is being made may have a lock file of its own
        for suffix in [Self.lockSuffix, Self.unfinishedSuffix] where name.utf8.count > suffix.utf8.count && name.hasSuffix(suffix)
        {
            name = String(name.dropLast(suffix.count))
        }
        return generation(of: name)
    }
}
