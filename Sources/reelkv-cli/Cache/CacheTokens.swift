import FoundationEssentials
import KVCodec
import ReelKV
import Safetensors

/// Says which tokens a cache file holds: ids, what its placeholders stand for, position ids.
struct CacheTokens {
    /// Names of what `import` reads and `export` writes beside the cache itself.
    enum Name {
        static let ids = "input_ids"
        static let positions = "position_ids"
        /// Index within its media of each placeholder, -1 for text; only where it is not simply counted on.
        static let mediaOffsets = "media_offsets"
        static let mediaDigests = "media_digests"
        static let firstToken = "first_token"
    }

    private let file: SafetensorsFile
    private let ids: [Int32]

    /// - Parameters:
    ///   - tokenCount: how many tokens the cache holds; nil where the ids alone count.
    ///   - idsPath: a file to take the ids from instead: a JSON array, or a safetensors file with `input_ids`.
    init(of file: SafetensorsFile, tokenCount: Int?, idsPath: String? = nil) throws {
        self.file = file
        if let first = file.metadata[Name.firstToken], first != "0" {
            throw Failure(
                "\(file.path) holds a part of a sequence, from token \(first) on: a cache is found and stored from its first "
                    + "token, so export from token 0"
            )
        }
        ids = try Self.ids(of: file, idsPath: idsPath)
        if let tokenCount, ids.count != tokenCount {
            throw Failure(
                "\(idsPath ?? file.path) has \(ids.count) token ids, but the cache in \(file.path) has \(tokenCount) tokens")
        }
    }

    /// - Parameter mediaDigests: what the placeholders stand for, from the caller; empty to take it from the file.
    func sequence(mediaDigests: [Digest]) throws -> TokenSequence {
        try TokenSequence(ids: ids, media: try spans(mediaDigests), positions: try positions())
    }

    // MARK: - Ids

    private static func ids(of file: SafetensorsFile, idsPath: String?) throws -> [Int32] {
        guard let idsPath else {
            guard file.tensors[Name.ids] != nil else {
                throw Failure(
                    "\(file.path) has no \(Name.ids), so it does not say which tokens it holds: name a file that does with "
                        + "--ids (a JSON array, or a safetensors file with \(Name.ids))"
                )
            }
            return try row(file, Name.ids)
        }
        if idsPath.hasSuffix(".safetensors") { return try row(try SafetensorsFile(path: idsPath), Name.ids) }
        let data: Data
        do { data = try Data(contentsOf: URL(filePath: idsPath)) } catch {
            throw Failure("\(idsPath) cannot be read: check the path and its permissions")
        }
        do { return try JSONDecoder().decode([Int32].self, from: data) } catch {
            throw Failure("\(idsPath) is no JSON array of token ids, such as [1, 4093, -1, -1, 2]")
        }
    }

    /// The integers of a tensor `[tokens]` or `[1, tokens]`.
    private static func row(_ file: SafetensorsFile, _ name: String) throws -> [Int32] {
        let shape = try file.info(of: name).shape
        guard shape.count == 1 || shape.count == 2 && shape[0] == 1 else {
            throw Failure("\(file.path): tensor '\(name)' has the shape \(shape); it must be [1, tokens] or [tokens]")
        }
        return try file.int32s(name)
    }

    /// `position_ids`, `[1, tokens]`, `[3, 1, tokens]` or without the 1: one row per stream.
    private func positions() throws -> [[Int32]]? {
        guard let info = file.tensors[Name.positions] else { return nil }
        let shape = info.shape.last == info.elementCount ? [1, info.elementCount] : info.shape.filter { $0 != 1 }
        guard shape.count == 2, shape[0] == 1 || shape[0] == 3, shape[1] == ids.count else {
            throw Failure(
                "\(file.path): tensor '\(Name.positions)' has the shape \(info.shape); \(ids.count) tokens need [1, "
                    + "\(ids.count)] or [3, 1, \(ids.count)]"
            )
        }
        let values = try file.int32s(Name.positions)
        return (0..<shape[0]).map { Array(values[$0 * ids.count..<($0 + 1) * ids.count]) }
    }

    // MARK: - Media

    /// The runs of placeholders. The distinct negative ids, from -1 downwards, are the first, second, … media; where text
    /// interrupts one, its offsets go on behind the interruption.
    private func spans(_ given: [Digest]) throws -> [MediaSpan] {
        let placeholders = Set(ids.lazy.filter { $0 < 0 }).sorted(by: >)
        let digests = try MediaIdentity.digests(count: placeholders.count, given: given, file: file)
        let ordinals = Dictionary(uniqueKeysWithValues: zip(placeholders, placeholders.indices))
        let offsets = file.tensors[Name.mediaOffsets] == nil ? nil : try Self.row(file, Name.mediaOffsets)
        if let offsets, offsets.count != ids.count {
            throw Failure("\(file.path): '\(Name.mediaOffsets)' has \(offsets.count) values, but there are \(ids.count) tokens")
        }
        var spans: [MediaSpan] = []
        var next = Array(repeating: 0, count: placeholders.count)
        for (index, id) in ids.enumerated() where id < 0 {
            guard let ordinal = ordinals[id] else { continue }
            let offset = offsets.map { Int($0[index]) } ?? next[ordinal]
            guard offset >= 0 else {
                throw Failure("\(file.path): '\(Name.mediaOffsets)' gives placeholder \(index) the negative offset \(offset)")
            }
            next[ordinal] = offset + 1
            if let last = spans.last, last.range.upperBound == index, last.digest == digests[ordinal],
                last.mediaOffset + last.count == offset
            {
                spans[spans.count - 1].count += 1
            } else {
                spans.append(MediaSpan(digest: digests[ordinal], firstToken: index, count: 1, mediaOffset: offset))
            }
        }
        return spans
    }
}
