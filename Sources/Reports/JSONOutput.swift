import FoundationEssentials

/// JSON for `--json`: keys in order, so that outputs can be compared.
public enum JSONOutput {
    /// `value` as JSON with a line end behind it; indented for people, one line for programs.
    ///
    /// Numbers that JSON does not have are written as the strings `"nan"`, `"inf"` and `"-inf"`.
    public static func text(_ value: some Encodable, pretty: Bool) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
    }
}
