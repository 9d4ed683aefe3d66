import Safetensors

/// What mlx-lm notes in a prompt cache beside keys and values.
///
/// Up to 0.31 the header has the class of layer N's cache as `2.N`. From 0.32 on that is `1.N`, and tensors `N.2`, `N.3`, ... hold what else
/// the cache keeps; the first of them is how many tokens it holds, which may be fewer than it has room for.
struct PromptCacheHeader {
    private let file: SafetensorsFile
    private let hasStateTensors: Bool

    init(_ file: SafetensorsFile) {
        self.file = file
        // Where the older form has a class, the newer one has an empty object.
        hasStateTensors = file.metadata["2.0"] == ""
    }

    /// Throws unless every layer's cache holds its tokens in order and unquantized.
    func checkClasses() throws {
        for (key, name) in file.metadata.sorted(by: { $0.key < $1.key }) {
            let parts = key.split(separator: ".")
            guard parts.count == 2, parts[0] == (hasStateTensors ? "1" : "2"), let layer = Int(parts[1]), name != "KVCache" else {
                continue
            }
            throw Failure(
                "\(file.path): layer \(layer) is a \(name) of mlx-lm; only KVCache can be imported, which holds every token "
                    + "in order"
            )
        }
    }

    /// How many tokens a layer holds; nil where it holds as many as its tensors have room for.
    func tokenCount(ofLayer layer: Int, room: Int) throws -> Int? {
        guard hasStateTensors, file.tensors["\(layer).2"] != nil else { return nil }
        guard let count = try file.int32s("\(layer).2").first, (0...room).contains(Int(count)) else {
            throw Failure(
                "\(file.path): layer \(layer) says that it holds another number of tokens than the 0 to \(room) it has room for")
        }
        return Int(count)
    }
}
