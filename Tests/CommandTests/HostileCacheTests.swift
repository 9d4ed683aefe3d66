import Foundation
import Testing

/// Files that cannot be meant. Each is an error, and the store is what it was.
struct HostileCacheTests {
    struct Flaw: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// Part of the message.
        var message: String
        var spoil: @Sendable (inout TinyCache) -> Void

        init(_ name: String, _ message: String, _ spoil: @escaping @Sendable (inout TinyCache) -> Void) {
            testDescription = name
            self.message = message
            self.spoil = spoil
        }
    }

    static let flaws = [
        Flaw("too few heads", "[1, 100, 64] of F16") { $0.tensors["layers.0.key"]?.shape = [1, 1, 100, 64] },
        Flaw("other dim", "[2, 50, 64] of F16") { cache in
            for name in cache.tensors.keys where name.hasPrefix("layers") { cache.tensors[name]?.shape = [1, 2, 50, 64] }
            cache.set("input_ids", Array(repeating: 1, count: 50))
        },
        Flaw("other dtype", "[2, 100, 32] of BF16") { $0.tensors["layers.1.value"]?.type = .bfloat16 },
        Flaw("a batch of two", "has the shape [2, 1, 100, 32]") { $0.tensors["layers.1.key"]?.shape = [2, 1, 100, 32] },
        Flaw("no values", "has no such tensor") { $0.tensors["layers.1.value"] = nil },
        Flaw("a layer missing", "without gaps") { cache in
            cache.tensors["layers.2.key"] = cache.tensors.removeValue(forKey: "layers.1.key")
            cache.tensors["layers.2.value"] = cache.tensors.removeValue(forKey: "layers.1.value")
        },
        Flaw("a layer too few", "has 1 layers, model 'tiny' has 2") { cache in
            cache.tensors["layers.1.key"] = nil
            cache.tensors["layers.1.value"] = nil
        },
        Flaw("fewer values than keys", "100 tokens of keys, but 50 of values") { cache in
            cache.tensors["layers.0.value"]?.shape = [1, 2, 50, 32]
            cache.tensors["layers.0.value"]?.bytes.removeLast(2 * 50 * 32 * 2)
        },
        Flaw("a layer without the first tokens", "[2, 50, 32] of F16") { cache in
            for name in ["layers.1.key", "layers.1.value"] {
                cache.tensors[name]?.shape = [1, 2, 50, 32]
                cache.tensors[name]?.bytes.removeLast(2 * 50 * 32 * 2)
            }
        },
        Flaw("no layers at all", "holds no KV cache") { cache in
            for name in cache.tensors.keys where name.hasPrefix("layers") { cache.tensors[name] = nil }
        },
        Flaw("no tokens", "no tokens") { cache in
            for name in cache.tensors.keys where name.hasPrefix("layers") {
                cache.tensors[name]?.shape = [1, 2, 0, 32]
                cache.tensors[name]?.bytes = []
            }
            cache.set("input_ids", [])
        },
        Flaw("no ids", "has no input_ids") { $0.tensors["input_ids"] = nil },
        Flaw("too few ids", "has 99 token ids") { $0.set("input_ids", Array(repeating: 1, count: 99)) },
        Flaw("ids of two rows", "has the shape [2, 50]") {
            $0.set("input_ids", Array(repeating: 1, count: 100), shape: [2, 50])
        },
        Flaw("ids that are floats", "an integer type") { $0.tensors["input_ids"]?.type = .float32 },
        Flaw("positions of another length", "[1, 100] or [3, 1, 100]") { $0.set("position_ids", [1, 2, 3]) },
        Flaw("two position streams", "[1, 100] or [3, 1, 100]") {
            $0.set("position_ids", Array(repeating: 1, count: 200), shape: [2, 1, 100])
        },
        Flaw("a frame beyond the end", "leaves the 100 tokens") { cache in
            cache.set("frame_offsets", [0, 90], shape: [2])
            cache.setSeconds("frame_seconds", [0, 1])
            cache.metadata["tokens_per_frame"] = "20"
        },
        Flaw("frames out of order", "out of order") { cache in
            cache.set("frame_offsets", [20, 0], shape: [2])
            cache.setSeconds("frame_seconds", [0, 1])
            cache.metadata["tokens_per_frame"] = "20"
        },
        Flaw("frames without a time", "no frame_seconds") { $0.set("frame_offsets", [0], shape: [1]) },
        Flaw("frames without a size", "how many tokens a frame has") { cache in
            cache.set("frame_offsets", [0], shape: [1])
            cache.setSeconds("frame_seconds", [0])
        },
        Flaw("a part of a sequence", "holds a part of a sequence") { $0.metadata["first_token"] = "64" },
        Flaw("other weights", "has the fingerprint abababab") {
            $0.metadata["weights_sha256"] = String(repeating: "cd", count: 32)
        },
        Flaw("digests that are none", "must be a JSON array of 1 digests") { cache in
            cache.set("input_ids", Array(repeating: -1, count: 100))
            cache.metadata["media_digests"] = "[\"zz\"]"
        },
        Flaw("offsets below zero", "the negative offset -5") { cache in
            cache.set("input_ids", Array(repeating: -1, count: 100))
            cache.set("media_offsets", Array(repeating: -5, count: 100))
            cache.metadata["source_sha256"] = "1234"
        },
    ]

    @Test(arguments: flaws) func importRefuses(_ flaw: Flaw) throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            var cache = TinyCache(tokens: 100)
            try tool.write(cache, "tiny.safetensors")
            try tool.succeed("reelkv import tiny.safetensors --model tiny --profile exact --video before")
            let before = try tool.succeed("reelkv ls --json; reelkv stats --json")
            flaw.spoil(&cache)
            try tool.write(cache, "tiny.safetensors")
            let error = try tool.fail("reelkv import tiny.safetensors --model tiny --profile exact --session after")
            #expect(error.contains(flaw.message))
            #expect(try tool.succeed("reelkv ls --json; reelkv stats --json") == before)
        }
    }

    /// Whatever bytes a file has, an import ends in success or in an error, never in a signal.
    @Test func brokenFilesAreErrors() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            try tool.write(TinyCache(tokens: 70), "whole.safetensors")
            let whole = try tool.bytes(of: "whole.safetensors")
            let headerEnd = 8 + whole.prefix(8).enumerated().reduce(0) { $0 + Int($1.element) << (8 * $1.offset) }
            var random = SeededGenerator(7)
            for round in 0..<40 {
                var broken = whole
                if round % 2 == 0 {
                    broken = whole.prefix(Int.random(in: 0..<whole.count, using: &random))
                } else {
                    for _ in 0..<3 {
                        broken[Int.random(in: 0..<headerEnd, using: &random)] = .random(in: 0...255, using: &random)
                    }
                }
                try broken.write(to: tool.folder.appending(path: "tiny.safetensors"))
                let outcome = try tool.run("reelkv import tiny.safetensors --model tiny --profile int4 --video v\(round)")
                #expect(outcome.status == 0 || outcome.status == 1, "round \(round): \(outcome.errors)")
                #expect(outcome.status == 0 || outcome.errors.hasPrefix("reelkv: error: "), "round \(round): \(outcome.errors)")
                if round % 2 == 0 { #expect(outcome.status == 1) }
            }
            try tool.succeed("reelkv verify")
        }
    }
}
