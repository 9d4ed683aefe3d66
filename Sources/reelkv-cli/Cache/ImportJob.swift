import KVCodec
import ReelKV
import Rendering

/// Moves a cache file's tensors into a store.
struct ImportJob {
    let store: Store
    let cache: CacheFile
    let model: ModelSpec
    let name: SequenceName
    let profile: Profile
    let encoder: (options: EncoderOptions, protected: Set<Int>)
    let replaces: Bool
    /// Whether its pages are kept from being evicted; nil for as it was, or as is usual for its kind.
    let isPinned: Bool?

    /// Tokens read at a time: what is in memory beside the writer's own page.
    private static let chunkTokens = 1024

    /// - Parameter progress: makes the progress bar for that many tokens.
    func run(tokens: TokenSequence, progress: (Int) -> ProgressBar?) throws -> ImportResult {
        guard tokens.count > 0 else { throw Failure("\(cache.file.path) holds no tokens: there is nothing to import") }
        let frames = try FrameTable.read(cache.file, tokenCount: cache.tokenCount)
        let known = try existing(tokens)
        if let known, known.isWhole {
            if let isPinned { try store.setPinned(isPinned, name) }
            return try unchanged(known.prefix)
        }
        let start = name.kind == .session && known == nil ? try reusable(tokens) : nil
        let first = name.kind == .session ? known?.prefix.tokenCount ?? start?.tokenCount ?? 0 : 0
        let writer = try store.writer(
            for: name, model: model.name, profile: profile, options: encoder.options, protectedTokens: encoder.protected,
            startingFrom: start, replacing: replaces)
        let bar = progress(tokens.count - first)
        defer { bar?.finish() }
        try append(tokens, from: first, to: writer, bar)
        try writer.finish(
            frames: name.kind == .video ? FrameTable.cut(frames, to: 0..<tokens.count) : [],
            provenance: CacheProvenance.read(cache.file), isPinned: isPinned)
        return ImportResult(
            name: name, profile: profile, model: model, prefix: try store.prefix(of: name, isCounted: false),
            reused: first + writer.reusedTokenCount, newBytes: writer.storedBytes, isUnchanged: false)
    }

    private func append(_ tokens: TokenSequence, from first: Int, to writer: SequenceWriter, _ bar: ProgressBar?) throws {
        var done = first
        while done < tokens.count {
            let chunk = done..<min(done + Self.chunkTokens, tokens.count)
            try cache.withLayers(chunk, of: model) { try writer.append(tokens[chunk], layers: $0) }
            cache.file.releaseResidentPages()
            bar?.advance(by: chunk.count)
            done = chunk.upperBound
        }
    }

    // MARK: - What is stored already

    /// The sequence of that name, if it is there and the file's tokens go on from it.
    ///
    /// - Returns: its stored tokens, and whether they are all that the file holds, in this profile.
    private func existing(_ tokens: TokenSequence) throws -> (prefix: StoredPrefix, isWhole: Bool)? {
        let info: SequenceInfo
        do { info = try store.info(of: name) } catch let error as StoreError where error.code == .notFound { return nil }
        guard info.model == model.name else {
            throw Failure("\(name) belongs to model '\(info.model)', not '\(model.name)': choose another name")
        }
        let prefix = try store.prefix(of: name, isCounted: false)
        guard prefix.tokenCount == info.tokenCount else {
            // a video is written anew where its pages are damaged; what a session lost is for its owner to decide
            guard name.kind == .session else { return nil }
            throw Failure(
                "only the first \(prefix.tokenCount) of the \(info.tokenCount) tokens of \(name) can be read: run `reelkv "
                    + "truncate \(name) \(prefix.tokenCount)` and import again"
            )
        }
        let stored = try store.tokens(of: prefix)
        let difference = stored.firstDifference(from: tokens)
        switch name.kind {
        case .video:
            let isSame = difference == nil && stored.count == tokens.count
            guard isSame || replaces else {
                let place = difference.map { "they differ at token \($0)" } ?? "it has \(stored.count), the file \(tokens.count)"
                throw Failure(
                    "\(name) holds other tokens (\(place)): choose another name, or give --replace to put the file's in "
                        + "their place"
                )
            }
            return isSame ? (prefix, info.profileID == profile.id) : nil
        case .session:
            if let difference {
                throw Failure(
                    "\(name) and \(cache.file.path) differ at token \(difference): a session is only appended to, so import "
                        + "under another name, or `reelkv truncate \(name) \(difference)` first"
                )
            }
            guard stored.count <= tokens.count else {
                throw Failure(
                    "\(name) has \(stored.count) tokens already, more than the \(tokens.count) to import: there is nothing "
                        + "to append"
                )
            }
            return (prefix, stored.count == tokens.count)
        }
    }

    /// What a new session starts from. Under `exact`, a lossy beginning would break the promise.
    private func reusable(_ tokens: TokenSequence) throws -> StoredPrefix? {
        let prefix = try store.longestPrefix(
            of: tokens, model: model.name, tenant: name.tenant, accepting: profile.isExact ? .exact : .any)
        return prefix.tokenCount > 0 ? prefix : nil
    }

    private func unchanged(_ prefix: StoredPrefix) throws -> ImportResult {
        ImportResult(
            name: name, profile: profile, model: model, prefix: prefix, reused: prefix.tokenCount, newBytes: 0,
            isUnchanged: true)
    }
}

/// What an import did.
struct ImportResult: Encodable {
    var name: String
    var profile: String
    var model: String
    var tokens: Int
    var reusedTokens: Int
    var appendedTokens: Int
    /// Bytes of the page images that were stored now.
    var newBytes: Int
    /// Bytes of all page images of the sequence.
    var storedBytes: Int
    var bitsPerElement: Double
    var keyError: Float
    var valueError: Float
    /// The sequence was there already, token for token.
    var unchanged: Bool

    enum CodingKeys: String, CodingKey {
        case name, profile, model, tokens, unchanged
        case reusedTokens = "reused_tokens"
        case appendedTokens = "appended_tokens"
        case newBytes = "new_bytes"
        case storedBytes = "stored_bytes"
        case bitsPerElement = "bits_per_element"
        case keyError = "key_error"
        case valueError = "value_error"
    }

    init(
        name: SequenceName, profile: Profile, model: ModelSpec, prefix: StoredPrefix, reused: Int, newBytes: Int,
        isUnchanged: Bool
    ) {
        self.name = name.description
        self.profile = profile.name
        self.model = model.name
        tokens = prefix.tokenCount
        reusedTokens = reused
        appendedTokens = prefix.tokenCount - reused
        self.newBytes = newBytes
        storedBytes = prefix.storedBytes
        bitsPerElement = 8 * Double(prefix.storedBytes) / Double(max(1, prefix.tokenCount * model.elementsPerToken))
        keyError = prefix.keyError
        valueError = prefix.valueError
        unchanged = isUnchanged
    }

    func text() -> String {
        let figures =
            "\(Format.decimal(bitsPerElement, places: 2)) bits per element, NMSE of keys \(errorText(keyError)), of values "
            + "\(errorText(valueError))"
        if unchanged { return "\(name) is stored already, token for token: \(Format.count(tokens)) tokens, \(figures)\n" }
        return """
            \(name): \(Format.count(tokens)) tokens, \(Format.count(reusedTokens)) reused, \
            \(Format.count(appendedTokens)) appended
            stored \(Format.bytes(newBytes)) of pages as \(profile); the whole sequence has \(figures)

            """
    }
}

/// An NMSE with three digits; 0 says that nothing was lost.
func errorText(_ error: Float) -> String { Format.significant(Double(error), digits: 3) }
