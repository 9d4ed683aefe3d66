import CReelKV

/// The memory that a C program's tensors lie in. Nothing lies behind it, so that a sanitizer sees the first byte too far.
final class CMemory {
    private static let byteCount = 1 << 15
    private let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)

    init() { bytes.initializeMemory(as: UInt8.self, repeating: 0x3C) }
    deinit { bytes.deallocate() }

    /// A tensor of any shape that lies within the memory, or that reaches so far that no memory can hold it.
    func tensor(_ input: inout FuzzInput, tokens: Int) -> reelkv_tensor {
        var tensor = usual(tokens: tokens)
        if input.next(UInt8.self) < 32 { change(&tensor, &input) }
        switch reach(tensor) {
        case .within: return tensor
        case .beyondMemory where tensor.data != nil: return tensor
        default:
            tensor = usual(tokens: 1)
            return tensor
        }
    }

    private func usual(tokens: Int) -> reelkv_tensor {
        reelkv_tensor(
            data: bytes.baseAddress, head_stride: UInt64(tokens * TemplateStore.dim), token_stride: UInt64(TemplateStore.dim),
            channel_stride: 1, heads: UInt32(TemplateStore.heads), tokens: UInt32(tokens), dim: UInt32(TemplateStore.dim),
            dtype: UInt32(REELKV_BFLOAT16))
    }

    private func change(_ tensor: inout reelkv_tensor, _ input: inout FuzzInput) {
        func number(_ usual: Int) -> UInt64 { UInt64(truncatingIfNeeded: input.size(upTo: usual)) }
        func small(_ usual: Int) -> UInt32 { UInt32(truncatingIfNeeded: input.size(upTo: usual)) }
        switch input.number(in: 0...8) {
        case 0: tensor.data = nil
        case 1: tensor.data = bytes.baseAddress.map { $0 + input.number(in: 0...64) }
        case 2: tensor.head_stride = number(2000)
        case 3: tensor.token_stride = number(100)
        case 4: tensor.channel_stride = number(50)
        case 5: tensor.heads = small(4)
        case 6: tensor.tokens = small(150)
        case 7: tensor.dim = small(20)
        default: tensor.dtype = small(4)
        }
    }

    private enum Reach { case within, between, beyondMemory }

    /// How far from the memory's start the last element lies.
    private func reach(_ tensor: reelkv_tensor) -> Reach {
        guard tensor.data != nil else { return .within }
        var last = UInt64(0)
        let extents = [
            (tensor.heads, tensor.head_stride), (tensor.tokens, tensor.token_stride), (tensor.dim, tensor.channel_stride),
        ]
        if extents.contains(where: { $0.0 == 0 }) { return .within }
        for (count, stride) in extents where count > 1 {
            let (product, overflow) = UInt64(count - 1).multipliedReportingOverflow(by: stride)
            let (sum, carry) = last.addingReportingOverflow(product)
            guard !overflow, !carry else { return .beyondMemory }
            last = sum
        }
        guard last < 1 << 56 else { return .beyondMemory }
        // As if elements had four bytes, and the tensor began at most 64 bytes into the memory.
        return last * 4 + 4 + 64 <= UInt64(Self.byteCount) ? .within : .between
    }
}
