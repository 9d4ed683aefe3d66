import KVCodec
import ReelKV
import Rendering
import Safetensors

/// Writes tokens of a stored sequence into a safetensors file, restoring straight into the file's memory.
struct ExportJob {
    let store: Store
    let info: SequenceInfo
    let prefix: StoredPrefix
    let tokens: Range<Int>
    let layers: Range<Int>
    let elementType: ElementType

    private var model: ModelSpec { prefix.model }

    /// - Parameter progress: makes the progress bar for that many bytes.
    func run(to path: String, progress: (Int) -> ProgressBar?) throws -> ExportResult {
        // the file is written layer by layer, and must be of one sequence from the first to the last
        let pages = try store.hold(prefix)
        defer { withExtendedLifetime(pages) {} }
        let contents = ExportedTokens(
            try store.tokens(of: prefix)[tokens], frames: FrameTable.cut(info.frames, to: tokens))
        let held = try firstTokens()
        let writer = try SafetensorsWriter(
            path: path, tensors: try cacheTensors(held) + contents.tensors,
            metadata: metadata().merging(contents.metadata) { _, new in new })
        let bar = progress(writer.byteCount)
        defer { bar?.finish() }
        try contents.write(to: writer)
        for layer in layers {
            try restore(layer, from: held[layer - layers.lowerBound], into: writer)
            let rows = tokens.upperBound - held[layer - layers.lowerBound]
            bar?.advance(by: rows * model.layers[layer].elementsPerToken * elementType.byteCount)
        }
        try writer.finish()
        return ExportResult(
            name: info.name.description, file: path, tokens: tokens, layers: layers, dtype: elementType.name,
            fileBytes: writer.byteCount, keyError: prefix.keyError, valueError: prefix.valueError)
    }

    // MARK: - The cache

    private static func name(_ layer: Int, _ kind: TensorKind) -> String { CacheFile.Style.named.name(layer, kind) }

    /// The first token of each layer from which on it holds all others: later than the first asked for where a sliding window
    /// has dropped tokens.
    private func firstTokens() throws -> [Int] {
        var first = Array(repeating: tokens.lowerBound, count: layers.count)
        guard model.layers[layers].contains(where: { $0.slidingWindow != nil }) else { return first }
        for page in try store.pages(of: prefix) where !page.tokens.clamped(to: tokens).isEmpty {
            try store.withImage(of: page) { image in
                for layer in layers where model.layers[layer].slidingWindow != nil {
                    let held = image.layers[layer].map { page.tokens.lowerBound + $0.tokens.lowerBound } ?? page.tokens.upperBound
                    if held > max(page.tokens.lowerBound, tokens.lowerBound) {
                        first[layer - layers.lowerBound] = min(held, tokens.upperBound)
                    }
                }
            }
        }
        return first
    }

    private func cacheTensors(_ held: [Int]) throws -> [TensorDeclaration] {
        guard let type = DataType(rawValue: elementType.name) else {
            throw Failure("safetensors has no element type '\(elementType.name)'")
        }
        return zip(layers, held).flatMap { layer, first in
            let geometry = model.layers[layer]
            return [(TensorKind.key, geometry.keyDim), (.value, geometry.valueDim)].map { kind, dim in
                TensorDeclaration(
                    Self.name(layer, kind), type, shape: [1, geometry.keyValueHeads, tokens.upperBound - first, dim])
            }
        }
    }

    private func restore(_ layer: Int, from first: Int, into writer: SafetensorsWriter) throws {
        guard first < tokens.upperBound else { return }
        let geometry = model.layers[layer]
        let count = tokens.upperBound - first
        try writer.withMutableBytes(of: Self.name(layer, .key)) { key in
            try writer.withMutableBytes(of: Self.name(layer, .value)) { value in
                let destination = LayerDestination(
                    key: try MutableTensorView(
                        bytes: key, elementType: elementType,
                        layout: .headsFirst(heads: geometry.keyValueHeads, tokens: count, dim: geometry.keyDim)),
                    value: try MutableTensorView(
                        bytes: value, elementType: elementType,
                        layout: .headsFirst(heads: geometry.keyValueHeads, tokens: count, dim: geometry.valueDim)))
                try store.restore(prefix, layers: layer..<layer + 1, tokens: first..<tokens.upperBound) { _ in destination }
            }
        }
    }

    private func metadata() -> [String: String] {
        var metadata = info.provenance.entries
        metadata["weights_sha256"] = model.fingerprint.hex
        metadata["model"] = metadata["model"] ?? model.name
        metadata[CacheTokens.Name.firstToken] = "\(tokens.lowerBound)"
        // numbered as in the file it came from, which need not be how the model numbers them
        if layers != 0..<model.layers.count { metadata["layers"] = "\(layers.lowerBound)..<\(layers.upperBound)" }
        return metadata
    }
}

/// What an export wrote.
struct ExportResult: Encodable {
    var name: String
    var file: String
    var firstToken: Int
    var tokens: Int
    var firstLayer: Int
    var layers: Int
    var dtype: String
    var fileBytes: Int
    var keyError: Float
    var valueError: Float

    enum CodingKeys: String, CodingKey {
        case name, file, tokens, layers, dtype
        case firstToken = "first_token"
        case firstLayer = "first_layer"
        case fileBytes = "file_bytes"
        case keyError = "key_error"
        case valueError = "value_error"
    }

    init(
        name: String, file: String, tokens: Range<Int>, layers: Range<Int>, dtype: String, fileBytes: Int, keyError: Float,
        valueError: Float
    ) {
        self.name = name
        self.file = file
        firstToken = tokens.lowerBound
        self.tokens = tokens.count
        firstLayer = layers.lowerBound
        self.layers = layers.count
        self.dtype = dtype
        self.fileBytes = fileBytes
        self.keyError = keyError
        self.valueError = valueError
    }

    func text() -> String {
        "\(file): tokens \(firstToken)..<\(firstToken + tokens) of layers \(firstLayer)..<\(firstLayer + layers) of \(name), "
            + "\(dtype), \(Format.bytes(fileBytes)); NMSE of the whole sequence's keys \(errorText(keyError)), of values "
            + "\(errorText(valueError))\n"
    }
}
