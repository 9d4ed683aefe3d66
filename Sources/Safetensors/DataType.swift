/// The element type of a tensor, with the name that the header gives it.
///
/// These are the types that the reference implementation knows (https://github.com/huggingface/safetensors). A type narrower
/// than a byte packs its elements without gaps, so a tensor of it must fill whole bytes.
public enum DataType: String, Sendable, Hashable, CaseIterable {
    /// One byte an element, 0 or 1.
    case bool = "BOOL"
    /// 4-bit float, two a byte (OCP microscaling).
    case float4 = "F4"
    /// 6-bit float, 2 exponent and 3 mantissa bits.
    case float6E2M3 = "F6_E2M3"
    /// 6-bit float, 3 exponent and 2 mantissa bits.
    case float6E3M2 = "F6_E3M2"
    case uint8 = "U8"
    case int8 = "I8"
    case float8E5M2 = "F8_E5M2"
    case float8E4M3 = "F8_E4M3"
    case float8E5M2FNUZ = "F8_E5M2FNUZ"
    case float8E4M3FNUZ = "F8_E4M3FNUZ"
    /// 8-bit power of two, a scale of microscaling formats.
    case float8E8M0 = "F8_E8M0"
    case uint16 = "U16"
    case int16 = "I16"
    case float16 = "F16"
    case bfloat16 = "BF16"
    case uint32 = "U32"
    case int32 = "I32"
    case float32 = "F32"
    /// Two 32-bit floats, real part first.
    case complex64 = "C64"
    case uint64 = "U64"
    case int64 = "I64"
    case float64 = "F64"

    /// Bits that one element takes.
    public var bitCount: Int {
        switch self {
        case .float4: 4
        case .float6E2M3, .float6E3M2: 6
        case .bool, .uint8, .int8, .float8E5M2, .float8E4M3, .float8E5M2FNUZ, .float8E4M3FNUZ, .float8E8M0: 8
        case .uint16, .int16, .float16, .bfloat16: 16
        case .uint32, .int32, .float32: 32
        case .complex64, .uint64, .int64, .float64: 64
        }
    }
}
