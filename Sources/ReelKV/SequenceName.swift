/// The two kinds of named sequences.
public enum SequenceKind: UInt8, Hashable, Sendable, CaseIterable {
    /// A published prefix: written once, then shared.
    case video = 0
    /// A branch that grows turn by turn.
    case session = 1

    /// `video` or `session`.
    public var noun: String { self == .video ? "video" : "session" }
}

/// Names a video or session: `video/NAME` or `session/NAME`, of a tenant.
public struct SequenceName: Hashable, Sendable, CustomStringConvertible {
    public var kind: SequenceKind
    public var name: String
    public var tenant: String

    public init(_ kind: SequenceKind, _ name: String, tenant: String = Store.defaultTenant) {
        self.kind = kind
        self.name = name
        self.tenant = tenant
    }

    public static func video(_ name: String, tenant: String = Store.defaultTenant) -> SequenceName {
        SequenceName(.video, name, tenant: tenant)
    }

    public static func session(_ name: String, tenant: String = Store.defaultTenant) -> SequenceName {
        SequenceName(.session, name, tenant: tenant)
    }

    /// Reads `video/NAME` or `session/NAME`. The name may hold further slashes.
    public init?(_ text: String, tenant: String = Store.defaultTenant) {
        guard let slash = text.firstIndex(of: "/"),
            let kind = SequenceKind.allCases.first(where: { $0.noun == text[..<slash] })
        else { return nil }
        self.init(kind, String(text[text.index(after: slash)...]), tenant: tenant)
    }

    /// `video/NAME` or `session/NAME`.
    public var description: String { "\(kind.noun)/\(name)" }

    func check() throws {
        try Names.check(name, what: kind.noun)
        try Names.check(tenant, what: "tenant")
    }
}
