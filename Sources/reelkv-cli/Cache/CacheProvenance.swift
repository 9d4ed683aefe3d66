import ReelKV
import Safetensors

/// What a file's metadata says of where the cache came from.
enum CacheProvenance {
    /// Entries that say something else, which is stored in its own place.
    private static let others: Set<String> = [
        CacheTokens.Name.mediaDigests, CacheTokens.Name.firstToken, "weights_sha256", "format", FrameTable.tokensPerFrame,
    ]
    static let file = "file"
    /// Longer entries are left out: provenance is read with every listing.
    static let entryBytesMax = 4096
    private static let entriesMax = 64

    static func read(_ source: SafetensorsFile) -> Provenance {
        var kept: [String: String] = [:]
        for (key, value) in source.metadata.sorted(by: { $0.key < $1.key }) where kept.count < entriesMax {
            let isFlattened = key.first?.isNumber ?? true  // mlx-lm's own bookkeeping: "0.3", "2.17"
            guard !others.contains(key), !isFlattened, key.utf8.count + value.utf8.count <= entryBytesMax else { continue }
            kept[key] = value
        }
        kept[file] = source.path.split(separator: "/").last.map(String.init) ?? source.path
        return Provenance(kept)
    }
}
