import CKVKernels

/// Collects the codes and metadata of a part, head by head, in a scratch's memory.
struct PartStreams {
    private let codeBits: Int
    private let group: Int
    private let rows: Int
    private let columns: Int
    private let codes: UnsafeMutableBufferPointer<UInt8>
    private let scales: UnsafeMutableBufferPointer<UInt8>
    private let means: UnsafeMutableBufferPointer<Int32>
    private var anchors: [UInt8] = []
    /// Of all values appended.
    private(set) var sums = SquareSums()

    /// For matrices `[rows][columns]` of so many heads. `second` chooses the second set of buffers, for a masked part beside the other.
    init(codeBits: Int, group: Int, heads: Int, rows: Int, columns: Int, second: Bool = false, scratch: EncodeScratch) {
        self.codeBits = codeBits
        self.group = group
        self.rows = rows
        self.columns = columns
        let codeCount = heads * GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits) * columns
        let count = heads * ((rows + group - 1) / group) * columns
        codes = .init(start: scratch.array(second ? .codesB : .codesA, codeCount, of: UInt8.self), count: codeCount)
        scales = .init(start: scratch.array(second ? .scalesB : .scalesA, count, of: UInt8.self), count: count)
        means = .init(start: scratch.array(second ? .meansB : .meansA, count, of: Int32.self), count: count)
    }

    /// Quantizes one head's matrix `[rows][columns]` in groups along the rows.
    mutating func append(_ values: UnsafePointer<Float>, quantizer: kv_quantizer, scratch: EncodeScratch) {
        let groups = (rows + group - 1) / group
        let head = anchors.count / 2
        let codeBytes = GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits) * columns
        let result = GroupQuantizer.quantize(
            values, rows: rows, columns: columns, group: group, quantizer: quantizer,
            packed: codes.baseAddress.unsafelyUnwrapped + head * codeBytes,
            scales: scales.baseAddress.unsafelyUnwrapped + head * groups * columns,
            means: means.baseAddress.unsafelyUnwrapped + head * groups * columns, scratch: scratch)
        sums += result.sums
        anchors.append(UInt8(bitPattern: result.anchor))
        anchors.append(result.steps)
        kv_scales_predict(result.scales, groups, columns, scratch.array(.prediction, columns, of: UInt8.self))
        kv_means_predict(result.means, groups, columns)
    }

    /// Adds the part and its streams to a section.
    func add(_ record: PartRecord, mask: [UInt8]?, to section: inout SectionBuilder, scratch: EncodeScratch) {
        section.beginPart(record)
        if let mask { section.addStream(.mask, mask) }
        section.addStream(.anchors, anchors)
        section.addStream(.scales, UnsafeRawBufferPointer(scales))
        let largest = means.reduce(UInt32(0)) { $0 | UInt32(bitPattern: $1) }
        let plane = UnsafeMutableBufferPointer(start: scratch.array(.plane, means.count, of: UInt8.self), count: means.count)
        for number in 0..<(32 - largest.leadingZeroBitCount + 7) / 8 {
            let shift = UInt32(8 * number)
            for index in 0..<means.count { plane[index] = UInt8(truncatingIfNeeded: UInt32(bitPattern: means[index]) &>> shift) }
            section.addStream(.means, plane: number, UnsafeRawBufferPointer(plane))
        }
        section.addStream(.codes, UnsafeRawBufferPointer(codes))
    }
}
