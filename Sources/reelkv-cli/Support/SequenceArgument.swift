import ArgumentParser
import ReelKV

/// `video/NAME` or `session/NAME`.
struct SequenceArgument: ExpressibleByArgument {
    var kind: SequenceKind
    var name: String

    init?(argument: String) {
        guard let parsed = SequenceName(argument), !parsed.name.isEmpty else { return nil }
        kind = parsed.kind
        name = parsed.name
    }

    func name(of tenant: TenantOption) -> SequenceName { SequenceName(kind, name, tenant: tenant.tenant) }

    static let help: ArgumentHelp = ArgumentHelp("video/NAME or session/NAME.", valueName: "name")
}
