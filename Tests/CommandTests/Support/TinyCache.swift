import Foundation
import Safetensors

/// SplitMix64: the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}

/// A small cache of random f16 values, as a safetensors file: two layers of two heads, dimension 32.
struct TinyCache {
    struct Tensor {
        var type: DataType
        var shape: [Int]
        var bytes: [UInt8]
    }

    var tensors: [String: Tensor] = [:]
    var metadata: [String: String] = [:]

    /// The spec that fits; `window` is the second layer's sliding window.
    static func spec(window: Int? = nil) -> String {
        """
        {"layers": 2, "kv_heads": 2, "head_dim": 32, "dtype": "float16", "rope": {"theta": 10000}, \
        "sliding_window": [null, \(window.map(String.init) ?? "null")], "fingerprint": "\(String(repeating: "ab", count: 32))"}
        """
    }

    /// - Parameters:
    ///   - names: what the keys and values of a layer are called.
    ///   - held: tokens that the second layer holds, the last ones; nil for all.
    init(
        tokens: Int, seed: UInt64 = 1, names: (Int, Bool) -> String = { "layers.\($0).\($1 ? "key" : "value")" }, held: Int? = nil
    ) {
        var random = SeededGenerator(seed)
        for layer in 0..<2 {
            for isKey in [true, false] {
                let shape = [1, 2, layer == 1 ? held ?? tokens : tokens, 32]
                let bytes = (0..<shape.reduce(1, *)).flatMap { _ in
                    // finite values of magnitude 1/16 to 8, of either sign
                    let bits = UInt16.random(in: 0x2C00..<0x4800, using: &random) | (Bool.random(using: &random) ? 0x8000 : 0)
                    return [UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8)]
                }
                tensors[names(layer, isKey)] = Tensor(type: .float16, shape: shape, bytes: bytes)
            }
        }
        set("input_ids", (0..<tokens).map { Int32($0 * 7 % 1000) })
    }

    /// Sets a tensor of 32-bit integers, `[1, count]` unless `shape` says otherwise.
    mutating func set(_ name: String, _ values: [Int32], shape: [Int]? = nil) {
        tensors[name] = Tensor(
            type: .int32, shape: shape ?? [1, values.count],
            bytes: values.flatMap { withUnsafeBytes(of: $0.littleEndian, Array.init) })
    }

    mutating func setSeconds(_ name: String, _ values: [Float]) {
        tensors[name] = Tensor(
            type: .float32, shape: [values.count],
            bytes: values.flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) })
    }

    func write(to url: URL) throws {
        let writer = try SafetensorsWriter(
            path: url.path,
            tensors: tensors.sorted { $0.key < $1.key }.map { TensorDeclaration($0.key, $0.value.type, shape: $0.value.shape) },
            metadata: metadata)
        for (name, tensor) in tensors { try tensor.bytes.withUnsafeBytes { try writer.write($0, to: name) } }
        try writer.finish()
    }
}

extension Tool {
    /// Writes a file into the tool's folder.
    func write(_ cache: TinyCache, _ name: String) throws { try cache.write(to: folder.appending(path: name)) }

    func write(_ text: String, _ name: String) throws { try Data(text.utf8).write(to: folder.appending(path: name)) }

    func bytes(of name: String) throws -> Data { try Data(contentsOf: folder.appending(path: name)) }

    func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: folder.appending(path: name).path) }

    /// The bytes of a tensor in a file of the folder.
    func tensor(_ tensor: String, of name: String) throws -> [UInt8] {
        try SafetensorsFile(path: folder.appending(path: name).path).withBytes(of: tensor) { Array($0) }
    }

    func int32s(_ tensor: String, of name: String) throws -> [Int32] {
        try SafetensorsFile(path: folder.appending(path: name).path).int32s(tensor)
    }

    /// Runs a command that must succeed; returns what it printed.
    @discardableResult
    func succeed(_ line: String) throws -> String {
        let outcome = try run(line)
        guard outcome.status == 0 else { throw Unexpected(line: line, outcome: outcome) }
        return outcome.output
    }

    /// Runs a command that must fail with status 1 and one line of error; returns that line.
    @discardableResult
    func fail(_ line: String) throws -> String {
        let outcome = try run(line)
        guard outcome.status == 1, outcome.errors.hasPrefix("reelkv: error: "), outcome.errors.split(separator: "\n").count == 1
        else { throw Unexpected(line: line, outcome: outcome) }
        return outcome.errors
    }

    struct Unexpected: Error, CustomStringConvertible {
        var line: String
        var outcome: Outcome

        var description: String { "\(line)\nstatus \(outcome.status)\n\(outcome.output)\(outcome.errors)" }
    }

    /// A store with the tiny model in it.
    func makeTinyStore(window: Int? = nil, pageTokens: Int = 64) throws {
        try write(TinyCache.spec(window: window), "tiny.json")
        try succeed("reelkv init --page-tokens \(pageTokens) && reelkv model add tiny --spec tiny.json")
    }
}
