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
}
