import Foundation
import Safetensors
import Testing

/// What `import` takes and `export` gives back, beyond the plain case that the scripts show.
struct CacheFileTests {
    private static let importTiny = "reelkv import tiny.safetensors --model tiny --profile exact"

    @Test func promptCachesOfMlxAreTaken() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            var cache = TinyCache(tokens: 150, names: { "\($0).\($1 ? 0 : 1)" })
            cache.tensors["input_ids"] = nil
            cache.metadata = ["0.0": "150", "2.0": "KVCache", "2.1": "KVCache", "1.model": "some"]
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.fail(Self.importTiny).contains("--ids"))
            try tool.write("[\((0..<150).map(String.init).joined(separator: ", "))]", "ids.json")
            try tool.succeed(Self.importTiny + " --ids ids.json")
            try tool.succeed("reelkv export video/tiny out.safetensors")
            #expect(try tool.tensor("layers.1.value", of: "out.safetensors") == cache.tensors["1.1"]?.bytes)
            #expect(try tool.int32s("input_ids", of: "out.safetensors") == (0..<150).map { Int32($0) })
            // ids may also come from another safetensors file
            #expect(
                try tool.succeed("reelkv match tiny.safetensors --model tiny --ids out.safetensors").hasPrefix("150 of 150"))
            cache.metadata["2.1"] = "RotatingKVCache"
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.fail(Self.importTiny + " --ids ids.json").contains("layer 1 is a RotatingKVCache"))
        }
    }

    /// From mlx-lm 0.32 on keys and values may have room behind the last token.
    @Test func promptCachesOfMlxWithRoomAreCut() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            var cache = TinyCache(tokens: 150, names: { "\($0).\($1 ? 0 : 1)" })
            cache.tensors["input_ids"] = nil
            cache.metadata = [
                "0.model": "some", "1.0": "KVCache", "1.1": "KVCache", "2.0": "", "2.1.0": "0.2", "2.1.1": "scalar",
                "2.2.0": "1.2", "2.2.1": "scalar",
            ]
            for layer in 0..<2 { cache.set("\(layer).2", [100], shape: []) }
            try tool.write(cache, "tiny.safetensors")
            try tool.write("[\((0..<100).map(String.init).joined(separator: ", "))]", "ids.json")
            try tool.succeed(Self.importTiny + " --ids ids.json")
            try tool.succeed("reelkv export video/tiny out.safetensors")
            let key = try #require(cache.tensors["0.0"])
            let rowBytes = key.bytes.count / key.shape.dropLast().reduce(1, *)
            let heads = key.shape[key.shape.count - 3]
            let held = (0..<heads).flatMap { key.bytes[$0 * 150 * rowBytes..<($0 * 150 + 100) * rowBytes] }
            #expect(try tool.tensor("layers.0.key", of: "out.safetensors") == held)
            cache.set("1.2", [151], shape: [])
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.fail(Self.importTiny + " --ids ids.json").contains("layer 1 says that it holds another number"))
            cache.metadata["1.1"] = "RotatingKVCache"
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.fail(Self.importTiny + " --ids ids.json").contains("layer 1 is a RotatingKVCache"))
        }
    }

    @Test(arguments: [[1, 100], [100], [3, 1, 100], [3, 100]])
    func positionsAreKept(shape: [Int]) throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            let count = shape.reduce(1, *)
            let positions = (0..<count).map { (index: Int) -> Int32 in Int32(index % 100 / 2 + index / 100) }
            var moved = positions
            for index in moved.indices where index % 100 == 70 { moved[index] += 1 }
            var cache = TinyCache(tokens: 100)
            cache.set("position_ids", positions, shape: shape)
            for (name, tensor) in cache.tensors where name.hasPrefix("layers") {
                cache.tensors[name]?.shape = Array(tensor.shape.dropFirst())  // [heads, tokens, dim] will do
            }
            try tool.write(cache, "tiny.safetensors")
            try tool.succeed(Self.importTiny)
            try tool.succeed("reelkv export video/tiny out.safetensors")
            #expect(try tool.int32s("position_ids", of: "out.safetensors") == positions)
            #expect(try tool.succeed("reelkv match out.safetensors --model tiny").hasPrefix("100 of 100"))
            // the same tokens at other positions are other keys
            cache.set("position_ids", moved, shape: shape)
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.succeed("reelkv match tiny.safetensors --model tiny").hasPrefix("70 of 100"))
        }
    }

    /// Two media, one of them interrupted by text: placeholders are known by what they stand for.
    @Test func mediaAreTakenApart() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            var cache = TinyCache(tokens: 200)
            let ids = (0..<200).map { index -> Int32 in
                switch index {
                case 10..<50, 60..<90: -1
                case 120..<180: -2
                default: Int32(index)
                }
            }
            cache.set("input_ids", ids)
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.fail(Self.importTiny).contains("--media-digest"))
            let digests = ["11", "22", "33"].map { "--media-digest " + String(repeating: $0, count: 32) }
            #expect(try tool.fail("\(Self.importTiny) \(digests[0])").contains("2 media, but 1 digests"))
            try tool.succeed("\(Self.importTiny) \(digests[0]) \(digests[1])")
            let match = "reelkv match tiny.safetensors --model tiny"
            #expect(try tool.succeed("\(match) \(digests[0]) \(digests[1])").hasPrefix("200 of 200"))
            #expect(try tool.succeed("\(match) \(digests[2]) \(digests[1])").hasPrefix("10 of 200"))
            #expect(try tool.succeed("\(match) \(digests[0]) \(digests[2])").hasPrefix("120 of 200"))
            try tool.succeed("reelkv export video/tiny out.safetensors")
            #expect(try tool.int32s("input_ids", of: "out.safetensors") == ids)
            #expect(try tool.succeed("reelkv match out.safetensors --model tiny").hasPrefix("200 of 200"))
            // a part's placeholders say where in their media they are
            try tool.succeed("reelkv export video/tiny part.safetensors --tokens 70:130")
            #expect(try tool.int32s("media_offsets", of: "part.safetensors")[0] == 50)
            #expect(try tool.int32s("media_offsets", of: "part.safetensors")[50] == 0)
            // other placeholder ids, the same media
            cache.set("input_ids", ids.map { $0 < 0 ? $0 * 200 : $0 })
            try tool.write(cache, "tiny.safetensors")
            #expect(try tool.succeed("\(match) \(digests[0]) \(digests[1])").hasPrefix("200 of 200"))
        }
    }

    @Test func slidingWindowLayersMayLackTokens() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore(window: 40)
            let cache = TinyCache(tokens: 200, held: 50)
            try tool.write(cache, "tiny.safetensors")
            try tool.succeed(Self.importTiny)
            try tool.succeed("reelkv export video/tiny out.safetensors")
            for name in ["layers.0.key", "layers.0.value", "layers.1.key", "layers.1.value"] {
                #expect(try tool.tensor(name, of: "out.safetensors") == cache.tensors[name]?.bytes)
            }
            #expect(try tool.succeed("reelkv match out.safetensors --model tiny").hasPrefix("200 of 200"))
        }
    }

    @Test func framesOfUnequalSizeAreKept() throws {
        try Tool.withFolder { tool in
            try tool.makeTinyStore()
            var cache = TinyCache(tokens: 100)
            cache.set("frame_offsets", [0, 10, 40], shape: [3])
            cache.set("frame_tokens", [10, 30, 60], shape: [3])
            cache.setSeconds("frame_seconds", [0.5, 1, 4])
            try tool.write(cache, "tiny.safetensors")
            try tool.succeed(Self.importTiny)
            try tool.succeed("reelkv export video/tiny out.safetensors --seconds 1:5")
            #expect(try tool.int32s("frame_offsets", of: "out.safetensors") == [0, 30])
            #expect(try tool.int32s("frame_tokens", of: "out.safetensors") == [30, 60])
            #expect(try tool.fail("reelkv export video/tiny no.safetensors --seconds 1.5...3.9").contains("no frame"))
            #expect(try tool.fail("reelkv export video/tiny no.safetensors --frames 3:4").contains("there are 3 frames"))
        }
    }
}
