/// What is wrong with tensors, options or a page image, and what to do about it.
///
/// `code` is for programs, `message` for people.
public struct CodecError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kinds of error. More may come: a `switch` over them needs a default.
    public struct Code: RawRepresentable, Hashable, Sendable {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }

        /// An argument that cannot be meant: a shape, a stride, an index, an option.
        public static let invalidArgument = Code(rawValue: "invalid-argument")
        /// No profile of that name or number.
        public static let unknownProfile = Code(rawValue: "unknown-profile")
        /// The bytes are no page image.
        public static let notAPage = Code(rawValue: "not-a-page")
        /// Written by a newer version of the format or by another codec.
        public static let newerFormat = Code(rawValue: "newer-format")
        /// The page contradicts itself or its checksum: treat it as absent.
        public static let damaged = Code(rawValue: "damaged")
        /// The page does not hold the layer or the tokens asked for.
        public static let absent = Code(rawValue: "absent")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }

    static func invalid(_ message: String) -> CodecError { CodecError(.invalidArgument, message) }
    static func damaged(_ message: String) -> CodecError { CodecError(.damaged, message) }
}
