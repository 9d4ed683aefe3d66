import ArgumentParser
import KVCodec

/// The name of a quantization profile.
struct ProfileArgument: ExpressibleByArgument {
    var profile: Profile

    init?(argument: String) {
        guard let profile = try? Profile.named(argument) else { return nil }
        self.profile = profile
    }

    static let allValueStrings = Profile.all.map(\.name)
    static var defaultCompletionKind: CompletionKind { .list(allValueStrings) }

    /// The name of a profile that the store knows by number.
    static func name(of id: UInt16) -> String { Profile.numbered(id)?.name ?? "profile-\(id)" }
}
