import KVCodec
import ModelSpecFiles
import Testing

/// Configs as they come with models, shortened to what matters and a little of what does not.
@Suite struct HuggingFaceConfigTests {
    private func layers(_ json: String) throws -> [LayerGeometry] {
        let file = try read(json, fingerprint: fingerprint)
        #expect(file.warnings == [])
        return file.spec.layers
    }

    @Test func llama() throws {
        let json = """
            {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "hidden_act": "silu", "hidden_size": 576,
             "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 9,
             "num_hidden_layers": 30, "num_key_value_heads": 3, "rope_interleaved": false, "rope_scaling": null,
             "rope_theta": 100000, "torch_dtype": "bfloat16", "vocab_size": 49152}
            """
        let layer = LayerGeometry(
            keyValueHeads: 3, keyDim: 64, valueDim: 64, rotary: RotaryParameters(theta: 100_000, dim: 64))
        #expect(try layers(json) == Array(repeating: layer, count: 30))
        #expect(try read(json, fingerprint: fingerprint).spec.elementType == .bfloat16)
        let found = message(json)
        #expect(found.contains("--fingerprint") && found.contains("sha256sum"), "\(found)")
    }

    @Test func llamaOfTransformers5() throws {
        let layers = try layers(
            """
            {"model_type": "llama", "dtype": "float16", "hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128,
             "num_hidden_layers": 2, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_parameters":
             {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}}
            """)
        let rotary = try #require(layers[1].rotary)
        #expect(rotary.inverseFrequencies.count == 64)
        #expect(abs(rotary.inverseFrequencies[63] - 3.068925877869333e-07) < 1e-12)
    }

    /// Flat, with the vision model beside it; M-RoPE.
    @Test(arguments: [
        #""rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}"#,
        #""rope_theta": 1000000.0, "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]}"#,
        #""rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}"#,
    ])
    func qwen25VL(rope: String) throws {
        let body = """
            "hidden_size": 3584, "max_position_embeddings": 128000, "max_window_layers": 28, "num_attention_heads": 28,
            "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 32768, "use_sliding_window": false, \(rope)
            """
        let expected = LayerGeometry(
            keyValueHeads: 4, keyDim: 128, valueDim: 128,
            rotary: RotaryParameters(theta: 1_000_000, dim: 128, sections: [16, 24, 24]))
        let flat = """
            {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "torch_dtype": "bfloat16",
             "vision_config": {"depth": 32, "hidden_size": 1280, "num_heads": 16}, \(body)}
            """
        #expect(try layers(flat) == Array(repeating: expected, count: 28))
        let nested = """
            {"model_type": "qwen2_5_vl", "dtype": "bfloat16", "vision_config": {"hidden_size": 1280},
             "text_config": {"model_type": "qwen2_5_vl_text", \(body)}}
            """
        #expect(try layers(nested) == Array(repeating: expected, count: 28))
    }

    @Test func qwenWithSlidingWindow() throws {
        let json = """
            {"model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_size": 512, "num_attention_heads": 4,
             "num_hidden_layers": 4, "num_key_value_heads": 2, "sliding_window": 4096, "use_sliding_window": true,
             "max_window_layers": 3}
            """
        #expect(try layers(json).map(\.slidingWindow) == [nil, nil, nil, 4096])
        // Where the kind of each layer is written, that counts.
        let typed = json.replacing(
            "\"max_window_layers\": 3",
            with: #""layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]"#)
        #expect(try layers(typed).map(\.slidingWindow) == [4096, nil, nil, nil])
    }

    @Test func llavaOnevision() throws {
        let layers = try layers(
            """
            {"architectures": ["LlavaOnevisionForConditionalGeneration"], "image_token_index": 151646,
             "model_type": "llava_onevision", "torch_dtype": "float16",
             "text_config": {"_name_or_path": "Qwen/Qwen2-7B-Instruct", "architectures": ["Qwen2ForCausalLM"],
               "hidden_size": 3584, "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2",
               "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rope_theta": 1000000.0,
               "sliding_window": 131072, "torch_dtype": "bfloat16", "use_sliding_window": false},
             "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 26}}
            """)
        let expected = LayerGeometry(
            keyValueHeads: 4, keyDim: 128, valueDim: 128, rotary: RotaryParameters(theta: 1_000_000, dim: 128))
        #expect(layers == Array(repeating: expected, count: 28))
    }

    /// As published, with most fields left to the class; as transformers 5 writes it, with rotations for each kind of layer.
    @Test(arguments: [
        """
        {"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
         "model_type": "gemma3_text", "num_hidden_layers": 8, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
         "sliding_window": 1024}, "vision_config": {"hidden_size": 1152}}
        """,
        """
        {"model_type": "gemma3_text", "dtype": "bfloat16", "head_dim": 256, "hidden_size": 2560, "num_attention_heads": 8,
         "num_hidden_layers": 8, "num_key_value_heads": 4, "sliding_window": 1024, "_sliding_window_pattern": 6,
         "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
           "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
         "rope_parameters": {"full_attention": {"factor": 8.0, "rope_theta": 1000000.0, "rope_type": "linear"},
           "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}}
        """,
    ])
    func gemma3(json: String) throws {
        let layers = try layers(json)
        let sliding = LayerGeometry(
            keyValueHeads: 4, keyDim: 256, valueDim: 256, slidingWindow: 1024, rotary: RotaryParameters(theta: 10_000, dim: 256))
        #expect(layers.indices.filter { layers[$0].slidingWindow == nil } == [5])
        #expect(layers[0] == sliding)
        let full = try #require(layers[5].rotary)
        let plain = RotaryParameters(theta: 1_000_000, dim: 256).inverseFrequencies
        #expect(zip(full.inverseFrequencies, plain).allSatisfy { abs($0 * 8 - $1) <= 1e-6 * $1 })
    }

    @Test func partialAndInterleavedRotation() throws {
        let glm = try layers(
            """
            {"model_type": "glm4", "torch_dtype": "bfloat16", "hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128,
             "num_key_value_heads": 2, "num_hidden_layers": 1, "partial_rotary_factor": 0.5, "rope_theta": 10000.0}
            """)
        #expect(glm[0].rotary == RotaryParameters(theta: 10_000, dim: 64, pairing: .interleaved))
        let phi = try layers(
            """
            {"model_type": "phi", "torch_dtype": "float16", "hidden_size": 2560, "num_attention_heads": 32,
             "num_hidden_layers": 1, "partial_rotary_factor": 0.4}
            """)
        #expect(
            phi[0]
                == LayerGeometry(
                    keyValueHeads: 32, keyDim: 80, valueDim: 80, rotary: RotaryParameters(theta: 10_000, dim: 32)))
    }

    @Test func layersWithoutRotation() throws {
        let layers = try layers(
            """
            {"model_type": "smollm3", "torch_dtype": "bfloat16", "hidden_size": 2048, "num_attention_heads": 16,
             "num_hidden_layers": 4, "num_key_value_heads": 4, "no_rope_layers": [1, 1, 1, 0], "rope_theta": 5000000.0,
             "use_sliding_window": false, "sliding_window": null}
            """)
        #expect(layers.map { $0.rotary == nil } == [false, false, false, true])
    }

    /// What is not known is no error: keys are stored as they are, and a warning says so.
    @Test(arguments: [
        (#""model_type": "phi3", "rope_scaling": {"type": "longrope", "long_factor": [1], "short_factor": [1]}"#, "longrope"),
        (#""model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}"#, "dynamic"),
        (
            #""model_type": "qwen3", "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20]}"#,
            "interleaved M-RoPE"
        ),
        (#""model_type": "brand_new", "rope_theta": 10000"#, "brand_new"), (#""architectures": ["X"]"#, "type ''"),
    ])
    func warnings(fields: String, expected: String) throws {
        let file = try read(
            #"{"hidden_size": 256, "num_attention_heads": 2, "num_hidden_layers": 2, "dtype": "float32", \#(fields)}"#,
            fingerprint: fingerprint)
        #expect(file.spec.layers.allSatisfy { $0.rotary == nil })
        #expect(file.warnings.count == 1)
        #expect(file.warnings.first?.contains(expected) == true, "\(file.warnings)")
    }

    @Test(arguments: [
        ("num_hidden_layers", "null", "field 'text_config.num_hidden_layers' is missing"),
        ("num_hidden_layers", "-1", "field 'text_config.num_hidden_layers' must be a whole number from 1 to 1024, not -1."),
        ("num_attention_heads", "null", "field 'text_config.num_attention_heads' is missing"),
        ("num_attention_heads", "7", "is 256, which 7 heads do not divide"),
        ("hidden_size", "null", "'text_config.hidden_size' is missing"),
        ("dtype", #""float8_e4m3fn""#, "but a cache holds float16, bfloat16 or float32"),
        ("dtype", "null", "field 'dtype' is missing"),
        ("layer_types", #"["full_attention"]"#, "has 1 entries, but the model has 2 layers"),
        (
            "layer_types", #"["full_attention", "linear_attention"]"#,
            "field 'text_config.layer_types[1]' is the text \"linear_attention\""
        ),
        ("layer_types", #"["full_attention", "sliding_attention"]"#, "field 'text_config.sliding_window' is missing"),
        ("sliding_window", "0", "field 'text_config.sliding_window' must be"), ("rope_theta", "-5", "must be a number above 0"),
        ("rope_theta", "0.5", "must be above 1."), ("rope_scaling", "3", "field 'text_config.rope_scaling' must be an object"),
        ("rope_scaling", #"{"type": "llama3", "factor": 8}"#, "field 'text_config.rope_scaling.low_freq_factor' is missing"),
        ("rope_scaling", #"{"type": "mrope", "mrope_section": [16, 24, 25]}"#, "add up to the 64 rotated pairs"),
        ("kv_lora_rank", "512", "latent attention"), ("num_kv_shared_layers", "15", "have no cache"),
        ("head_dim", "4096", "field 'text_config.head_dim' must be a whole number from 1 to 1024"),
    ])
    func errors(field: String, value: String, expected: String) {
        var fields = [
            "model_type": #""qwen2""#, "hidden_size": "256", "num_attention_heads": "2", "num_hidden_layers": "2",
            "num_key_value_heads": "1", "dtype": #""bfloat16""#,
        ]
        fields[field] = value
        let text = fields.map { "\"\($0)\": \($1)" }.joined(separator: ", ")
        let found = message(#"{"model_type": "llava", "text_config": {\#(text)}}"#, fingerprint: fingerprint)
        #expect(found.contains(expected), "\(found)")
    }
}
