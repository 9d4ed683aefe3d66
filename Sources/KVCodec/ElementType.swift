/// The type of a tensor's elements, as the model computes them.
public enum ElementType: UInt8, CaseIterable, Hashable, Sendable {
    case float16 = 1
    case bfloat16 = 2
    case float32 = 3

    /// Bytes per element.
    public var byteCount: Int { self == .float32 ? 4 : 2 }

    /// The name safetensors gives the type.
    public var name: String {
        switch self {
        case .float16: "F16"
        case .bfloat16: "BF16"
        case .float32: "F32"
        }
    }

    /// Accepts the names of safetensors, NumPy and PyTorch in any case: `BF16`, `bfloat16`, `torch.bfloat16`.
    public init?(name: some StringProtocol) {
        var plain = name.lowercased()
        if plain.hasPrefix("torch.") { plain.removeFirst("torch.".count) }
        switch plain {
        case "f16", "fp16", "float16", "half": self = .float16
        case "bf16", "bfloat16": self = .bfloat16
        case "f32", "fp32", "float32", "float": self = .float32
        default: return nil
        }
    }
}
