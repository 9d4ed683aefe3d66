/// Memory that decoding works in, kept from one call to the next. Use one per thread.
public final class DecodeScratch {
    /// What a buffer is for. A buffer's contents last until the next request for it.
    enum Slot: Int, CaseIterable {
        case codesA, codesB, scaleCodes, means, meanPlane, scalesA, scalesB, offsetsA, offsetsB, exactPlanes, maxima
        case anchors, scaleTable, units, prediction, mask, channels, targets, lanes, rows, values, places, columns
        case shared, sharedOffsets, opened
    }

    private var buffers: [UnsafeMutableRawBufferPointer]
    private var decompressor: Decompressor?
    private var fourierPlans: [Int: FourierPlan] = [:]
    private var rotary = RotaryCache()

    public init() {
        buffers = Slot.allCases.map { _ in UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    }

    deinit {
        for buffer in buffers { buffer.deallocate() }
    }

    /// At least `byteCount` bytes, aligned to 64, of undefined contents.
    func bytes(_ slot: Slot, _ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        if buffers[slot.rawValue].count < byteCount || buffers[slot.rawValue].baseAddress == nil {
            buffers[slot.rawValue].deallocate()
            buffers[slot.rawValue] = .allocate(byteCount: max(byteCount, 64), alignment: 64)
        }
        return UnsafeMutableRawBufferPointer(rebasing: buffers[slot.rawValue][..<byteCount])
    }

    /// Memory for a section that does not lie in its image as it is: at least `byteCount` bytes, which last until the next request.
    package func section(byteCount: Int) -> UnsafeMutableRawBufferPointer { bytes(.opened, byteCount) }

    /// The memory that it holds.
    package var byteCount: Int { buffers.reduce(rotary.byteCount) { $0 + $1.count } }

    func floats(_ slot: Slot, _ count: Int) -> UnsafeMutablePointer<Float> {
        bytes(slot, count * 4).baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
    }

    func sharedDecompressor() throws(CodecError) -> Decompressor {
        if let decompressor { return decompressor }
        let made = try Decompressor()
        decompressor = made
        return made
    }

    func fourierPlan(length: Int) -> FourierPlan {
        if let plan = fourierPlans[length] { return plan }
        let plan = FourierPlan(length: length)
        fourierPlans[length] = plan
        return plan
    }

    /// The angles of a range of a page's tokens; layers of a page mostly share them.
    func rotaryTable(_ parameters: RotaryParameters, positions: PagePositions, tokens: Range<Int>) -> RotaryTable {
        rotary.table(parameters, positions: positions, tokens: tokens)
    }
}
