import ArgumentParser
import KVCodec
import ReelKV
import Rendering
import Reports
import Safetensors

struct MatchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "match", abstract: "Show how much of a file's token sequence is stored.",
        discussion: """
            Looks at the file's input_ids and what its placeholders stand for, not at its tensors. A match is exact to the \
            token, also inside pages; it says where it stops, and why. To have looked so is no use of the pages: it keeps none \
            from being evicted, and `reelkv stats` does not count it.

            Example:
              reelkv match chat.safetensors --model qwen --max-key-error 0.05 --max-value-error 0.1
            """)

    @Argument(help: "The file.", completion: .file(extensions: ["safetensors"]))
    var file: String

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Option(help: ArgumentHelp("The model, as `reelkv model add` named it.", valueName: "name"))
    var model: String

    @Flag(help: "Accept only pages that are bit-identical to what was stored.")
    var exact = false

    @Option(help: ArgumentHelp("The greatest NMSE of keys to accept in a page.", valueName: "x"))
    var maxKeyError: Float?

    @Option(help: ArgumentHelp("The greatest NMSE of values to accept in a page.", valueName: "x"))
    var maxValueError: Float?

    @Option(
        help: ArgumentHelp("A JSON array of token ids, or a safetensors file with input_ids.", valueName: "file"),
        completion: .file(extensions: ["json", "safetensors"]))
    var ids: String?

    @Option(help: ArgumentHelp("Identifies the media of the placeholders; once for each media.", valueName: "hex"))
    var mediaDigest: [DigestArgument] = []

    @OptionGroup var output: OutputOption

    func validate() throws {
        if exact, maxKeyError != nil || maxValueError != nil {
            throw ValidationError("--exact accepts no error: give it without --max-key-error and --max-value-error.")
        }
    }

    func run() throws {
        let store = try store.openToLook()
        let spec = try store.model(named: model)
        let file = try SafetensorsFile(path: file)
        if let weights = file.metadata["weights_sha256"], Digest(hex: weights) != spec.fingerprint {
            throw Failure(
                "\(file.path) was made with the weights \(weights.prefix(16))…, but model '\(model)' has the fingerprint "
                    + "\(spec.fingerprint.hex.prefix(16))…: nothing of it can match"
            )
        }
        let tokens = try CacheTokens(of: file, tokenCount: nil, idsPath: ids)
            .sequence(mediaDigests: mediaDigest.map(\.digest))
        let bounds = Acceptance(keyErrorMax: maxKeyError ?? .infinity, valueErrorMax: maxValueError ?? .infinity)
        let prefix = try store.longestPrefix(
            of: tokens, model: model, tenant: tenant.tenant, accepting: exact ? .exact : bounds, isCounted: false)
        let pages = try store.pages(of: prefix)
        try output.write(MatchReport(prefix, asked: tokens.count, pages: pages)) { $0.text() }
    }
}

struct MatchReport: Encodable {
    struct Page: Encodable {
        var firstToken: Int
        var tokens: Int
        var profile: String
        var tail: Bool
        var keyError: Float
        var valueError: Float
        var bytes: Int

        enum CodingKeys: String, CodingKey {
            case tokens, profile, tail, bytes
            case firstToken = "first_token"
            case keyError = "key_error"
            case valueError = "value_error"
        }
    }

    var tokens: Int
    var matched: Int
    var stop: String
    var reason: String
    var exact: Bool
    var keyError: Float
    var valueError: Float
    var pages: [Page]

    enum CodingKeys: String, CodingKey {
        case tokens, matched, stop, reason, exact, pages
        case keyError = "key_error"
        case valueError = "value_error"
    }

    init(_ prefix: StoredPrefix, asked: Int, pages: [StoredPage]) {
        tokens = asked
        matched = prefix.tokenCount
        (stop, reason) = Self.describe(prefix.stop)
        exact = prefix.isExact
        keyError = prefix.keyError
        valueError = prefix.valueError
        self.pages = pages.map { page in
            Page(
                firstToken: page.tokens.lowerBound,
                tokens: min(page.tokens.upperBound, prefix.tokenCount) - page.tokens.lowerBound,
                profile: Profile.name(of: page.profileID), tail: page.isTail, keyError: page.keyError,
                valueError: page.valueError, bytes: page.imageBytes)
        }
    }

    private static func describe(_ stop: MatchStop) -> (name: String, reason: String) {
        switch stop {
        case .complete: ("complete", "every token is stored")
        case .notStored: ("not-stored", "the next token is not stored behind these")
        case .tooLossy(let key, let value):
            (
                "too-lossy",
                "the next page is stored with an NMSE of \(errorText(key)) in keys and \(errorText(value)) in values, more "
                    + "than accepted"
            )
        case .quarantined: ("quarantined", "the next page is damaged and counts as absent: import its tokens again")
        case .slidingWindowIncomplete:
            ("sliding-window-incomplete", "the sliding-window layers' last tokens are not stored at any later point")
        }
    }

    func text() -> String {
        var text = "\(Format.count(matched)) of \(Format.count(tokens)) tokens are stored: \(reason)\n"
        guard !pages.isEmpty else { return text }
        text += "NMSE of keys \(errorText(keyError)), of values \(errorText(valueError))\(exact ? ": bit-identical" : "")\n\n"
        var table = TextTable(
            .right("TOKENS"), .left("PROFILE"), .left("KIND"), .right("NMSE K"), .right("NMSE V"), .right("BYTES"))
        for page in pages {
            table.append(
                "\(page.firstToken)..<\(page.firstToken + page.tokens)", page.profile, page.tail ? "tail" : "page",
                errorText(page.keyError), errorText(page.valueError), Format.count(page.bytes))
        }
        return text + table.text()
    }
}
