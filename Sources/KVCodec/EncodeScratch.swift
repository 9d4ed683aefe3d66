import CKVKernels
import Locking

/// Memory, tables and a compressor that encoding works with, kept from one layer to the next. Not for two threads at once.
final class EncodeScratch: @unchecked Sendable {
    // Sendable, but not for two threads at once.

    /// What a buffer is for. A buffer's contents last until the next request for it.
    enum Slot: Int, CaseIterable {
        case rows, ranges, gathered, gatheredRest, codesA, codesB, scalesA, scalesB, meansA, meansB, plane, prediction, quantizing
    }

    let compressor: Compressor
    /// What decoding what was encoded works in.
    let decoding = DecodeScratch()
    private var buffers: [UnsafeMutableRawBufferPointer]
    private var fourierPlans: [Int: FourierPlan] = [:]

    init() throws(CodecError) {
        compressor = try Compressor()
        buffers = Slot.allCases.map { _ in UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    }

    deinit {
        for buffer in buffers { buffer.deallocate() }
    }

    /// At least `count` elements, aligned to 64 bytes, of undefined contents.
    func array<Element: BitwiseCopyable>(_ slot: Slot, _ count: Int, of type: Element.Type) -> UnsafeMutablePointer<Element> {
        let byteCount = count * MemoryLayout<Element>.stride
        if buffers[slot.rawValue].count < byteCount || buffers[slot.rawValue].baseAddress == nil {
            buffers[slot.rawValue].deallocate()
            buffers[slot.rawValue] = .allocate(byteCount: max(byteCount, 64), alignment: 64)
        }
        return buffers[slot.rawValue].baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: type)
    }

    func fourierPlan(length: Int) -> FourierPlan {
        if let plan = fourierPlans[length] { return plan }
        let plan = FourierPlan(length: length)
        fourierPlans[length] = plan
        return plan
    }

    private var byteCount: Int { buffers.reduce(decoding.byteCount) { $0 + $1.count } }

    // MARK: - Kept for the next

    private static let idle = Mutex<[EncodeScratch]>([])
    private static let keptMax = 16
    /// One that a page of unusual shape has made larger goes.
    private static let bytesMax = 16 << 20

    private static func take() throws(CodecError) -> EncodeScratch {
        if let kept = idle.withLock({ $0.popLast() }) { return kept }
        return try EncodeScratch()
    }

    /// Calls `body` with a scratch that nobody else uses meanwhile.
    static func with<R>(_ body: (EncodeScratch) throws(CodecError) -> R) throws(CodecError) -> R {
        let scratch = try take()
        defer {
            if scratch.byteCount <= bytesMax { idle.withLock { if $0.count < keptMax { $0.append(scratch) } } }
        }
        return try body(scratch)
    }
}
