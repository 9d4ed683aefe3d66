import FoundationEssentials
import KVCodec
public import ReelKV

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A model described by a JSON file: either ReelKV's own spec, or the `config.json` that Hugging Face models come with.
///
/// ReelKV's own spec:
///
/// ```json
/// {
///   "layers": 30, "kv_heads": 3, "head_dim": 64, "dtype": "bfloat16",
///   "rope": {"theta": 100000},
///   "fingerprint": "b179c952…"
/// }
/// ```
///
/// - `layers`: number of layers.
/// - `kv_heads`, `head_dim` (or `key_dim` and `value_dim`), `sliding_window` (tokens; null for none): a number, or an array with
///   one entry per layer.
/// - `dtype`: `float16`, `bfloat16` or `float32`.
/// - `rope`: how keys are rotated, or an array with one such entry per layer, null where a layer's are not. In it `theta`; `dim`,
///   the rotated channels (all by default); `interleaved`, whether pairs are neighbours; `mrope_section`, pairs per position stream;
///   `scaling`, with a `type` (`linear`, `llama3`, `yarn`) and its parameters as in `config.json`; or, instead of theta and
///   scaling, `inv_freq`, the frequency of each pair in radians per position.
/// - `fingerprint`: 64 hexadecimal digits that identify the weights, such as the SHA-256 of the weight file.
public struct ModelSpecFile: Sendable {
    public let spec: ModelSpec
    /// What a person should know: rotations that ReelKV cannot undo, say. Sentences.
    public let warnings: [String]

    /// Reads a file.
    ///
    /// - Parameters:
    ///   - name: what the store is going to call the model.
    ///   - fingerprint: needed for a `config.json`, which does not have one.
    public init(path: String, name: String, fingerprint: String? = nil) throws(ModelSpecFileError) {
        try self.init(json: try contents(of: path), file: path, name: name, fingerprint: fingerprint)
    }

    /// Parses the text of a file.
    ///
    /// - Parameter file: how messages call it.
    public init(
        json: some Sequence<UInt8>, file: String, name: String, fingerprint: String? = nil
    ) throws(ModelSpecFileError) {
        let value: JSONValue
        do {
            value = try JSONDecoder().decode(JSONValue.self, from: Data(json))
        } catch {
            throw ModelSpecFileError(file: file, field: nil, jsonProblem(error))
        }
        guard case .object(let members) = value else {
            throw ModelSpecFileError(file: file, field: nil, "the file must hold a JSON object.")
        }
        let fields = Fields(members, file: file)
        let model: ModelShape
        var written: String?
        if fields.has("layers") {
            model = try readOwnSpec(fields)
            written = try fields.string("fingerprint")
        } else if fields.has("num_hidden_layers") || fields.has("text_config") || fields.has("model_type") {
            model = try readHuggingFaceConfig(fields)
        } else {
            throw fields.error(
                "layers", "is missing: the file is neither a model spec, which has it, nor a Hugging Face config.json.")
        }
        let digest = try Self.fingerprint(written: written, given: fingerprint, fields)
        spec = ModelSpec(name: name, fingerprint: digest, elementType: model.elementType, layers: model.layers)
        warnings = model.warnings
    }

    /// The fingerprint of the file or of the command line; both must agree where both are there.
    private static func fingerprint(
        written: String?, given: String?, _ fields: Fields
    ) throws(ModelSpecFileError) -> Digest {
        func digest(_ text: String) throws(ModelSpecFileError) -> Digest {
            let digits = text.hasPrefix("sha256:") ? text.dropFirst("sha256:".count) : text[...]
            guard let digest = Digest(hex: digits), digest != .zero else {
                throw fields.error(
                    "fingerprint",
                    "must be 64 hexadecimal digits that are not all zero, such as the SHA-256 of the weights; "
                        + "`sha256sum model.safetensors` prints it. For several weight files: "
                        + "`sha256sum *.safetensors | sha256sum`.")
            }
            return digest
        }
        switch (written, given) {
        case (nil, nil):
            throw fields.error(
                "fingerprint",
                "is missing. Pass --fingerprint with 64 hexadecimal digits that identify the weights; "
                    + "`sha256sum model.safetensors` prints such digits. For several weight files: "
                    + "`sha256sum *.safetensors | sha256sum`.")
        case (let text?, nil), (nil, let text?):
            return try digest(text)
        case (let written?, let given?):
            let result = try digest(given)
            guard try digest(written) == result else {
                throw fields.error(
                    "fingerprint", "differs from --fingerprint. Remove the one that belongs to other weights.")
            }
            return result
        }
    }
}

/// What a file says about a model, but for its name and weights.
struct ModelShape {
    var elementType: ElementType
    var layers: [LayerGeometry]
    var warnings: [String]
}

/// Why a model file cannot be used. `description` names the file and the field, and says what is expected.
public struct ModelSpecFileError: Error, Sendable, Hashable, CustomStringConvertible {
    /// How the file was called.
    public let file: String
    /// Where in the file: `rope.theta`, `text_config.head_dim`. Nil if it is the file as a whole.
    public let field: String?
    public let message: String

    init(file: String, field: String?, _ message: String) {
        self.file = file
        self.field = field
        self.message = message
    }

    public var description: String {
        if let field { "\(file): field '\(field)' \(message)" } else { "\(file): \(message)" }
    }
}

/// A model file of more bytes is none: the largest configs have some thousands.
private let fileByteCountMax = 16 << 20

private func contents(of path: String) throws(ModelSpecFileError) -> [UInt8] {
    func problem(_ action: String) -> ModelSpecFileError {
        ModelSpecFileError(file: path, field: nil, "the file cannot be \(action): \(String(cString: strerror(errno))).")
    }
    guard let file = fopen(path, "rbe") else { throw problem("opened") }
    defer { fclose(file) }
    var result: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = fread(&buffer, 1, buffer.count, file)
        result += buffer[..<count]
        guard result.count <= fileByteCountMax else {
            throw ModelSpecFileError(
                file: path, field: nil, "the file has more than \(fileByteCountMax) bytes: it is no model spec or config.json.")
        }
        if count < buffer.count {
            guard ferror(file) == 0 else { throw problem("read") }
            return result
        }
    }
}

/// What the decoder says, in one line. It takes any JSON, so that only a number that no double holds can be of a wrong type.
private func jsonProblem(_ error: any Error) -> String {
    guard case DecodingError.dataCorrupted(let context) = error else {
        return "this is not valid JSON (a number in it is out of range)."
    }
    return context.underlyingError.map { "this is not valid JSON (\($0))." } ?? "this is not valid JSON."
}
