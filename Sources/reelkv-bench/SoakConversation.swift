import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Conversations whose tokens and tensors follow from their number alone, so that any process can tell whether what it restores is
/// right. The tensors are random bits, which nothing compresses: bytes appended are bytes stored.
struct SoakConversation {
    static let pageTokens = 64
    static let turnTokens = 4 * pageTokens
    static let turns = 4
    private static let layers = 8
    private static let heads = 4
    private static let dim = 128
    /// Of one tensor and token.
    private static let rowBytes = heads * dim * 2

    static let model = ModelSpec(
        name: "soak", fingerprint: .blake2b([42]), elementType: .bfloat16,
        layers: Array(repeating: LayerGeometry(keyValueHeads: heads, keyDim: dim, valueDim: dim), count: layers))

    /// Bytes of one conversation's tensors.
    static let bytes = turns * turnTokens * model.exactBytesPerToken
    static let turnBytes = turnTokens * model.exactBytesPerToken

    let number: Int

    /// The first `count` tokens.
    func tokens(_ count: Int) throws -> TokenSequence {
        try TokenSequence(ids: (0..<count).map { Int32(truncatingIfNeeded: word($0, 0) & 0xFFFF) })
    }

    private func word(_ token: Int, _ salt: Int) -> UInt64 {
        var z =
            UInt64(truncatingIfNeeded: number) << 40 ^ UInt64(truncatingIfNeeded: token) << 16 ^ UInt64(truncatingIfNeeded: salt)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// Fills the tensors of some tokens: `[tokens, heads, dim]`, layer after layer, keys before values.
    func fill(_ memory: UnsafeMutableRawBufferPointer, tokens: Range<Int>) {
        var offset = 0
        for tensor in 0..<2 * Self.layers {
            for token in tokens {
                var state = word(token, tensor + 1)
                for byte in stride(from: 0, to: Self.rowBytes, by: 8) {
                    // xorshift64* (Vigna, 2016)
                    state ^= state >> 12
                    state ^= state << 25
                    state ^= state >> 27
                    memory.storeBytes(of: state &* 0x2545_F491_4F6C_DD1D, toByteOffset: offset + byte, as: UInt64.self)
                }
                offset += Self.rowBytes
            }
        }
    }

    private static func layout(_ tokens: Int) -> TensorLayout { .tokensFirst(heads: heads, tokens: tokens, dim: dim) }

    /// Views of memory that `fill` has filled.
    static func layers(_ memory: UnsafeMutableRawBufferPointer, tokens: Int) throws -> [LayerTokens] {
        let bytes = UnsafeRawBufferPointer(memory)
        return try (0..<layers).map { layer in
            let view = { (tensor: Int) in
                try TensorView(
                    bytes: bytes, offset: (2 * layer + tensor) * tokens * rowBytes, elementType: .bfloat16,
                    layout: layout(tokens))
            }
            return LayerTokens(key: try view(0), value: try view(1))
        }
    }

    /// Where a restore of so many tokens goes, laid out as `fill` does.
    static func destination(
        _ memory: UnsafeMutableRawBufferPointer, tokens: Int, layer: Int
    ) throws -> LayerDestination {
        let view = { (tensor: Int) in
            try MutableTensorView(
                bytes: memory, offset: (2 * layer + tensor) * tokens * rowBytes, elementType: .bfloat16, layout: layout(tokens))
        }
        return LayerDestination(key: try view(0), value: try view(1))
    }
}

/// Memory for a conversation, freed with the last reference.
final class SoakMemory {
    let bytes: UnsafeMutableRawBufferPointer
    init(count: Int) { bytes = .allocate(byteCount: count, alignment: 64) }
    deinit { bytes.deallocate() }

    func prefix(_ count: Int) -> UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: bytes[0..<count]) }

    static func areEqual(_ left: UnsafeMutableRawBufferPointer, _ right: UnsafeMutableRawBufferPointer) -> Bool {
        guard left.count == right.count, let first = left.baseAddress, let second = right.baseAddress else { return false }
        return memcmp(first, second, left.count) == 0
    }
}
