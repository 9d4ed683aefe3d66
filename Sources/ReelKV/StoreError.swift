/// What went wrong in a store, and what to do about it.
///
/// `code` is for programs, `message` for people. Nothing that was stored before an error is lost by it.
public struct StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kinds of error. More may come: a `switch` over them needs a default.
    public struct Code: RawRepresentable, Hashable, Sendable {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }

        /// The folder holds no store, or a file in it is not what it should be.
        public static let notAStore = Code(rawValue: "not-a-store")
        /// A store is already there.
        public static let storeExists = Code(rawValue: "store-exists")
        /// Written by a newer version of ReelKV.
        public static let newerFormat = Code(rawValue: "newer-format")
        /// A record or page contradicts itself or its checksum.
        public static let damaged = Code(rawValue: "damaged")
        /// No model, tenant, video or session of that name.
        public static let notFound = Code(rawValue: "not-found")
        /// The name is taken.
        public static let alreadyExists = Code(rawValue: "already-exists")
        /// Another writer changed the same sequence meanwhile.
        public static let conflict = Code(rawValue: "conflict")
        /// An argument that cannot be meant.
        public static let invalidArgument = Code(rawValue: "invalid-argument")
        /// Tensors or tokens that do not fit the model.
        public static let modelMismatch = Code(rawValue: "model-mismatch")
        /// The store was opened read-only, or the medium is.
        public static let readOnly = Code(rawValue: "read-only")
        /// The disk is full, or the store reached a limit.
        public static let noSpace = Code(rawValue: "no-space")
        /// The store's or the tenant's quota, and nothing that may be evicted.
        public static let quotaExceeded = Code(rawValue: "quota-exceeded")
        /// The page was stored once and is gone or damaged now; treat it as a miss.
        public static let pageUnavailable = Code(rawValue: "page-unavailable")
        /// Still in use: a model with sequences, say, or a file that another process has been opening for 5 seconds.
        public static let inUse = Code(rawValue: "in-use")
        /// The operating system refused.
        public static let inputOutput = Code(rawValue: "input-output")
        /// The tenant is encrypted and its key was not given, or it has another one by now.
        public static let keyRequired = Code(rawValue: "key-required")
        /// Not the tenant's key.
        public static let wrongKey = Code(rawValue: "wrong-key")
        /// Used in a child process after fork().
        public static let forked = Code(rawValue: "forked")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
