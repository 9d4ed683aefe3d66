/// How much of the pages a verification looks at. The index is always checked as a whole.
public enum VerificationDepth: String, Hashable, Sendable, CaseIterable {
    /// No page is read.
    case index
    /// Every page is read and its checksums compared.
    case checksums
    /// Every page is decoded besides.
    case tensors
}

/// One thing that is not as it should be.
public struct VerificationProblem: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        case store, identity, model, tenant, node, reference, head, volume, page
    }

    public var kind: Kind
    /// What it is about: a chain hash, a name, a file.
    public var subject: String
    public var message: String

    public init(kind: Kind, subject: String, message: String) {
        self.kind = kind
        self.subject = subject
        self.message = message
    }
}

/// A file in the store's folder that belongs to nothing in it. It takes space and does no harm.
public struct LeftoverFile: Hashable, Sendable {
    /// Relative to the store's folder.
    public var path: String
    public var bytes: Int
    /// What it seems to be.
    public var message: String
}

/// What a verification looked at and what it found.
public struct VerificationReport: Hashable, Sendable {
    public var nodes = 0
    public var pages = 0
    public var heads = 0
    public var volumes = 0
    public var bytes = 0
    /// Pages that failed a checksum before and count as absent.
    public var quarantined = 0
    /// Nodes of encrypted tenants whose keys were not given: of them and their pages, only checksums were checked.
    public var lockedNodes = 0
    /// Page images that nothing refers to: deleted, or left by a crash. Compaction gives their space back.
    public var orphanPages = 0
    public var orphanBytes = 0
    public var leftovers: [LeftoverFile] = []
    public var problems: [VerificationProblem] = []

    public var isSound: Bool { problems.isEmpty }

    /// How many problems there are of each kind.
    public var counts: [VerificationProblem.Kind: Int] {
        problems.reduce(into: [:]) { $0[$1.kind, default: 0] += 1 }
    }
}

/// What a repair found, and what it did or would do about it.
public struct RepairReport: Hashable, Sendable {
    /// What was wrong before.
    public var found = VerificationReport()
    /// Everything that was dropped, cut, marked or made anew, in the order in which it was decided.
    public var changes: [VerificationProblem] = []
    /// Whether the index was written anew, in place of one that is lost or could not be read.
    public var isRebuilt = false
    /// Nodes made anew from their page images.
    public var nodesRecovered = 0
    /// What is still wrong; of a dry run, all that was found.
    public var left: [VerificationProblem] = []

    /// Whether nothing is wrong now.
    public var isSound: Bool { left.isEmpty }
}
