import ArgumentParser
import KVCodec
import ReelKV
import Rendering

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Store the KV cache in a safetensors file as a video or session.",
        discussion: """
            The file holds layers.N.key and layers.N.value of [1, heads, tokens, dim] and input_ids of [1, tokens], or is an \
            mlx-lm prompt cache (then --ids names the tokens). Negative ids are placeholders of media: the distinct ones, from \
            -1 downwards, are the first, second, … media. What they stand for comes from --media-digest, or the file's \
            metadata media_digests, or source_sha256 with sampling and tokens_per_frame.

            Tokens that are stored already are not stored again: an existing session must begin the file's tokens, and only \
            the rest is appended; a new session goes on from the longest stored prefix (of exact pages only, under the profile \
            exact). With neither --video nor --session the file becomes a video of its name. Metadata entries of up to 4 KiB are \
            kept as provenance.

            A new video is pinned: its pages are never evicted, unless --no-pin or `reelkv unpin` lets them be. A new session is \
            not; what exists stays as it was.

            Examples:
              reelkv import lobby.safetensors --model qwen --profile vidkv-1.5-1.58
              reelkv import a.safetensors --model qwen --profile int4 --session alice
            """)

    @Argument(help: "The file.", completion: .file(extensions: ["safetensors"]))
    var file: String

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Option(help: ArgumentHelp("The model, as `reelkv model add` named it.", valueName: "name"))
    var model: String

    @Option(help: "How pages are encoded.")
    var profile: ProfileArgument

    @Option(help: ArgumentHelp("Store a video of this name.", valueName: "name"))
    var video: String?

    @Option(help: ArgumentHelp("Append to the session of this name, or begin it.", valueName: "name"))
    var session: String?

    @Option(help: ArgumentHelp("Only the file's first tokens: '0..<b' or 0:b.", valueName: "0..<b"))
    var tokens: IndexRange?

    @Option(
        help: ArgumentHelp("A JSON array of token ids, or a safetensors file with input_ids.", valueName: "file"),
        completion: .file(extensions: ["json", "safetensors"]))
    var ids: String?

    @Option(help: ArgumentHelp("Identifies the media of the placeholders; once for each media.", valueName: "hex"))
    var mediaDigest: [DigestArgument] = []

    @Flag(help: "Replace a video of the name that holds other tokens.")
    var replace = false

    @Flag(inversion: .prefixedNo, help: "Keep its pages from being evicted, or let them be.")
    var pin: Bool?

    @Flag(help: "Wait for half the disk flushes: a crash of the machine may lose the newest pages, and nothing else.")
    var relaxed = false

    @OptionGroup(title: "Encoder options") var encoder: EncoderFlags
    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    func validate() throws {
        if video != nil, session != nil { throw ValidationError("Give --video or --session, not both.") }
        if replace, session != nil { throw ValidationError("--replace is for videos; remove the session first.") }
    }

    func run() throws {
        let store = try store.openToChange(durability: relaxed ? .relaxed : nil)
        let job = ImportJob(
            store: store, cache: try CacheFile(path: file), model: try store.model(named: model), name: try name(),
            profile: profile.profile, encoder: try encoder.options(), replaces: replace, isPinned: pin)
        let whole = try CacheTokens(of: job.cache.file, tokenCount: job.cache.tokenCount, idsPath: ids)
            .sequence(mediaDigests: mediaDigest.map(\.digest))
        let range = try tokens?.resolved(within: whole.count, what: "tokens") ?? 0..<whole.count
        guard range.lowerBound == 0 else {
            throw Failure("a cache is stored from its first token: use --tokens 0..<\(range.upperBound)")
        }
        try job.cache.check(against: job.model)
        let result = try job.run(tokens: whole[range]) { total in
            quiet.progress("import", total: total, unit: .count("tokens"))
        }
        try output.write(result) { $0.text() }
    }

    private func name() throws -> SequenceName {
        if let session { return .session(session, tenant: tenant.tenant) }
        if let video { return .video(video, tenant: tenant.tenant) }
        let fileName = file.split(separator: "/").last.map(String.init) ?? file
        let plain = fileName.hasSuffix(".safetensors") ? String(fileName.dropLast(".safetensors".count)) : fileName
        return .video(plain, tenant: tenant.tenant)
    }
}
