import FoundationEssentials
import KVCodec
import ReelKV
import Safetensors

/// What placeholders stand for: a digest of the decoded media and its sampling.
enum MediaIdentity {
    /// One digest per media of a file: the caller's, or those in its metadata, or one made from what it says of its source.
    static func digests(count: Int, given: [Digest], file: SafetensorsFile) throws -> [Digest] {
        guard given.isEmpty || given.count == count else {
            throw Failure("\(file.path) has placeholders of \(count) media, but \(given.count) digests were given")
        }
        guard count > 0 else { return [] }
        if !given.isEmpty { return given }
        if let text = file.metadata[CacheTokens.Name.mediaDigests] { return try listed(text, count: count, file: file) }
        if let source = ofSource(file.metadata) {
            guard count == 1 else {
                throw Failure(
                    "\(file.path) has placeholders of \(count) media, but names one source: give one --media-digest for "
                        + "each, from placeholder -1 downwards"
                )
            }
            return [source]
        }
        throw Failure(
            "\(file.path) has placeholders, but does not say what they stand for: give --media-digest HEX for each media (64 "
                + "digits, of the decoded frames and their sampling), or write \(CacheTokens.Name.mediaDigests), or "
                + "source_sha256, sampling and tokens_per_frame, into its metadata"
        )
    }

    private static func listed(_ text: String, count: Int, file: SafetensorsFile) throws -> [Digest] {
        let hexes = try? JSONDecoder().decode([String].self, from: Data(text.utf8))
        let digests = hexes?.compactMap { Digest(hex: $0) }
        guard let digests, digests.count == hexes?.count, digests.count == count else {
            throw Failure(
                "\(file.path): metadata '\(CacheTokens.Name.mediaDigests)' must be a JSON array of \(count) digests of 64 "
                    + "hexadecimal digits"
            )
        }
        return digests
    }

    /// A digest of the source's digest and how it was sampled, so that another sampling of the same video is another media.
    private static func ofSource(_ metadata: [String: String]) -> Digest? {
        guard let source = metadata["source_sha256"] else { return nil }
        var text = "reelkv media 1\n"
        for (key, value) in [
            ("source_sha256", source.lowercased()), ("sampling", metadata["sampling"] ?? ""),
            ("tokens_per_frame", metadata["tokens_per_frame"] ?? ""),
        ] {
            text += "\(key) \(value.utf8.count) \(value)\n"
        }
        return Digest.blake2b(Array(text.utf8))
    }
}
