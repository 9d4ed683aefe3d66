import ArgumentParser
import ReelKV

/// The name of an eviction policy.
struct PolicyArgument: ExpressibleByArgument {
    var policy: EvictionPolicy

    init?(argument: String) {
        guard let policy = EvictionPolicy(name: argument) else { return nil }
        self.policy = policy
    }

    static let allValueStrings = EvictionPolicy.allCases.map(\.name)
    static var defaultCompletionKind: CompletionKind { .list(allValueStrings) }
}
