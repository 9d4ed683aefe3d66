import ArgumentParser

/// A value, or `none`.
struct Limit<Value: ExpressibleByArgument>: ExpressibleByArgument {
    /// nil for `none`.
    var value: Value?

    init?(argument: String) {
        if argument == Self.none { return }
        guard let value = Value(argument: argument) else { return nil }
        self.value = value
    }

    private static var none: String { "none" }

    static var allValueStrings: [String] { Value.allValueStrings.isEmpty ? [] : Value.allValueStrings + [none] }

    static var defaultCompletionKind: CompletionKind {
        allValueStrings.isEmpty ? Value.defaultCompletionKind : .list(allValueStrings)
    }
}
