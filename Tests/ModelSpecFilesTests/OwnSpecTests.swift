import KVCodec
import ModelSpecFiles
import Testing

let fingerprint = String(repeating: "0123456789abcdef", count: 4)

func read(_ json: String, fingerprint: String? = nil) throws(ModelSpecFileError) -> ModelSpecFile {
    try ModelSpecFile(json: json.utf8, file: "spec.json", name: "test", fingerprint: fingerprint)
}

/// The error that a text leads to, as people see it.
func message(_ json: String, fingerprint: String? = nil) -> String {
    do throws(ModelSpecFileError) {
        _ = try read(json, fingerprint: fingerprint)
        return "no error"
    } catch {
        return error.description
    }
}

@Suite struct OwnSpecTests {
    @Test func smallest() throws {
        let file = try read(
            #"{"layers": 30, "kv_heads": 3, "head_dim": 64, "dtype": "torch.bfloat16", "rope": {"theta": 100000}, "#
                + #""fingerprint": "\#(fingerprint)"}"#)
        #expect(file.spec.name == "test")
        #expect(file.spec.fingerprint.hex == fingerprint)
        #expect(file.spec.elementType == .bfloat16)
        let layer = LayerGeometry(
            keyValueHeads: 3, keyDim: 64, valueDim: 64, rotary: RotaryParameters(theta: 100_000, dim: 64))
        #expect(file.spec.layers == Array(repeating: layer, count: 30))
        #expect(file.warnings == [])
    }

    @Test func perLayer() throws {
        let file = try read(
            """
            {"layers": 3, "kv_heads": [8, 4, 1], "key_dim": [192, 64, 64], "value_dim": 128, "dtype": "F16",
             "sliding_window": [null, 512, 0], "fingerprint": "sha256:\(fingerprint)",
             "rope": [{"theta": 1e6, "dim": 64, "interleaved": true}, null, {"inv_freq": [1, 0.5], "mrope_section": [0, 1, 1]}]}
            """)
        let layers = file.spec.layers
        #expect(layers.map(\.keyValueHeads) == [8, 4, 1])
        #expect(layers.map(\.keyDim) == [192, 64, 64])
        #expect(layers.map(\.valueDim) == [128, 128, 128])
        #expect(layers.map(\.slidingWindow) == [nil, 512, nil])
        #expect(layers[0].rotary == RotaryParameters(theta: 1e6, dim: 64, pairing: .interleaved))
        #expect(layers[1].rotary == nil)
        #expect(layers[2].rotary == RotaryParameters(inverseFrequencies: [1, 0.5], sections: [0, 1, 1]))
    }

    @Test func rotationsThatAreNotKnown() throws {
        let start = #"{"layers": 2, "kv_heads": 1, "head_dim": 64, "dtype": "f32", "fingerprint": "\#(fingerprint)""#
        let unknown = try read(start + #", "rope": {"theta": 10000, "scaling": {"type": "longrope", "factor": 2}}}"#)
        #expect(unknown.spec.layers.allSatisfy { $0.rotary == nil })
        #expect(unknown.warnings.count == 1)
        #expect(unknown.warnings.first?.contains("'longrope'") == true)
        #expect(try read(start + "}").warnings.count == 1)
        #expect(try read(start + #", "rope": null}"#).warnings == [])
    }

    /// Frequencies that transformers 5.23 computes for the same parameters.
    @Test(arguments: [
        (
            128, 500_000.0,
            #"{"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}"#,
            [1.0, 0.03760603070259094, 0.0005248460220173001, 6.647869668086059e-06, 3.068925877869333e-07] as [Float]
        ),
        (
            128, 1_000_000, #"{"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32768}"#,
            [1.0, 0.03162277862429619, 0.0006029411451891065, 7.905693564680405e-06, 3.102344408034696e-07]
        ),
        (
            128, 10_000, #"{"type": "linear", "factor": 8.0}"#,
            [0.125, 0.012500000186264515, 0.0012499999720603228, 0.0001250000059371814, 1.4434774129767902e-05]
        ),
    ])
    func scalings(dim: Int, theta: Double, scaling: String, expected: [Float]) throws {
        let file = try read(
            #"{"layers": 1, "kv_heads": 1, "head_dim": \#(dim), "dtype": "bf16", "fingerprint": "\#(fingerprint)", "#
                + #""rope": {"theta": \#(theta), "scaling": \#(scaling)}}"#)
        let frequencies = try #require(file.spec.layers[0].rotary).inverseFrequencies
        #expect(frequencies.count == dim / 2)
        for (index, value) in zip([0, dim / 8, dim / 4, dim * 3 / 8, dim / 2 - 1], expected) {
            #expect(abs(frequencies[index] - value) <= 1e-5 * value)
        }
    }

    // MARK: - Errors

    /// A good spec with one field replaced, and what the message must say.
    @Test(arguments: [
        ("layers", "0", "field 'layers' must be a whole number from 1 to 1024, not 0."),
        ("layers", "1e9", "not 1000000000."), ("layers", "2.5", "not 2.5."), ("layers", "true", "not true."),
        ("kv_heads", "null", "field 'kv_heads' is missing"), ("kv_heads", "-3", "from 1 to 1024, not -3."),
        ("kv_heads", "[3, 3, 3]", "field 'kv_heads' has 3 entries, but the model has 2 layers"),
        ("kv_heads", "[3, null]", "field 'kv_heads[1]' must be a whole number from 1 to 1024, not null."),
        ("kv_heads", "[3, [3]]", "not an array of 1."), ("kv_heads", "99999999999999999999", "not 1e+20."),
        ("head_dim", "65536", "field 'head_dim' must be a whole number from 1 to 1024, not 65536."),
        ("head_dim", "null", "field 'head_dim' is missing"), ("key_dim", "64", "cannot be given together"),
        ("dtype", #""int8""#, #"is "int8", but a cache holds float16, bfloat16 or float32."#), ("dtype", "null", "is missing"),
        ("dtype", "16", "must be a text, not 16."), ("sliding_window", "-1", "field 'sliding_window' must be"),
        ("rope", "[null]", "field 'rope' has 1 entries"), ("rope", "7", "field 'rope' must be an object, not 7."),
        ("rope", "{}", "field 'rope.theta' is missing"),
        ("rope", #"{"theta": 0}"#, "field 'rope.theta' must be a number above 0"),
        ("rope", #"{"theta": 1}"#, "field 'rope.theta' must be above 1."), ("rope", #"{"theta": 2, "dim": 66}"#, "from 2 to 64"),
        ("rope", #"{"theta": 2, "dim": 33}"#, "field 'rope.dim' must be even"),
        ("rope", #"{"theta": 2, "tehta": 33}"#, "field 'rope.tehta' is not known here"),
        ("rope", #"{"theta": 2, "mrope_section": [1, 2, 3]}"#, "add up to the 32 rotated pairs"),
        ("rope", #"{"theta": 2, "mrope_section": [16, 16]}"#, "three numbers"),
        ("rope", #"{"theta": 2, "inv_freq": [1]}"#, "give either it or them"), ("rope", #"{"inv_freq": []}"#, "has 0 entries"),
        ("rope", #"{"inv_freq": [1, "x"]}"#, "field 'rope.inv_freq[1]' must be a finite number"),
        ("rope", #"{"inv_freq": [1e200]}"#, "field 'rope.inv_freq[0]' must be a finite number"),
        ("rope", #"{"theta": 2, "scaling": {"type": "linear"}}"#, "field 'rope.scaling.factor' is missing"),
        ("rope", #"{"theta": 2, "scaling": {"type": "linear", "factor": -1}}"#, "field 'rope.scaling.factor' must be"),
        ("rope", #"{"theta": 2, "scaling": {"type": "yarn", "factor": 2}}"#, "original_max_position_embeddings' is missing"),
        ("rope", #"[{"theta": 2}, {"theta": "x"}]"#, "field 'rope[1].theta' must be"),
        ("fingerprint", #""abc""#, "field 'fingerprint' must be 64 hexadecimal digits"),
        ("fingerprint", #""\#(String(repeating: "0", count: 64))""#, "not all zero"), ("fingerprint", "null", "sha256sum"),
        ("kvheads", "3", "field 'kvheads' is not known here; the fields are layers, kv_heads"),
    ])
    func fieldErrors(field: String, value: String, expected: String) {
        var fields = [
            "layers": "2", "kv_heads": "3", "head_dim": "64", "dtype": #""bfloat16""#, "rope": #"{"theta": 10000}"#,
            "fingerprint": "\"\(fingerprint)\"",
        ]
        fields[field] = value
        let json = "{" + fields.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}"
        let found = message(json)
        #expect(found.hasPrefix("spec.json: field '"))
        #expect(found.contains(expected), "\(found)")
    }

    @Test func fileErrors() {
        #expect(message("") == "spec.json: this is not valid JSON.")
        #expect(message(#"{"layers": 1e400}"#) == "spec.json: this is not valid JSON (a number in it is out of range).")
        #expect(message("{").contains("not valid JSON"))
        #expect(message("[]").contains("must hold a JSON object"))
        #expect(message("{}").contains("neither a model spec, which has it, nor a Hugging Face config.json"))
        #expect(message(String(repeating: "[", count: 100_000)).contains("not valid JSON"))
        let error = #expect(throws: ModelSpecFileError.self) { try ModelSpecFile(path: "/no/such.json", name: "test") }
        #expect(error?.description.hasPrefix("/no/such.json: the file cannot be opened: ") == true)
        #expect(throws: ModelSpecFileError.self) { try ModelSpecFile(path: "/", name: "test") }
    }

    @Test func fingerprintFromTheCommandLine() throws {
        let other = String(fingerprint.reversed())
        let json = #"{"layers": 1, "kv_heads": 1, "head_dim": 4, "dtype": "f32", "rope": null, "fingerprint": "\#(fingerprint)"}"#
        #expect(try read(json, fingerprint: fingerprint.uppercased()).spec.fingerprint.hex == fingerprint)
        #expect(message(json, fingerprint: other).contains("differs from --fingerprint"))
        let without = json.replacing(#", "fingerprint": "\#(fingerprint)""#, with: "")
        #expect(try read(without, fingerprint: other).spec.fingerprint.hex == other)
        #expect(message(without).contains("--fingerprint"))
    }
}
