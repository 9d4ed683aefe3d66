import CKVKernels

/// Collects the codes and metadata of a part, head by head.
struct PartStreams {
    private let codeBits: Int
    private let group: Int
    private var codes: [UInt8] = []
    private var scales: [UInt8] = []
    private var anchors: [UInt8] = []
    private var means: [Int32] = []
    /// Of all values appended.
    private(set) var sums = SquareSums()

    init(codeBits: Int, group: Int) {
        self.codeBits = codeBits
        self.group = group
    }

    /// Quantizes one head's matrix `[rows][columns]` in groups along the rows.
    mutating func append(
        _ values: UnsafePointer<Float>, rows: Int, columns: Int, quantizer: kv_quantizer, scratch: EncodeScratch
    ) {
        let byteRows = GroupQuantizer.byteRows(rows: rows, group: group, perByte: 8 / codeBits)
        let packed = scratch.array(.codes, byteRows * columns, of: UInt8.self)
        let result = GroupQuantizer.quantize(
            values, rows: rows, columns: columns, group: group, quantizer: quantizer, packed: packed, scratch: scratch)
        let groups = (rows + group - 1) / group
        sums += result.sums
        codes.append(contentsOf: UnsafeBufferPointer(start: packed, count: byteRows * columns))
        anchors.append(UInt8(bitPattern: result.anchor))
        anchors.append(result.steps)
        kv_scales_predict(result.scales, groups, columns, scratch.array(.prediction, columns, of: UInt8.self))
        scales.append(contentsOf: UnsafeBufferPointer(start: result.scales, count: groups * columns))
        kv_means_predict(result.means, groups, columns)
        means.append(contentsOf: UnsafeBufferPointer(start: result.means, count: groups * columns))
    }

    /// Adds the part and its streams to a section.
    func add(_ record: PartRecord, mask: [UInt8]?, to section: inout SectionBuilder) {
        section.beginPart(record)
        if let mask { section.addStream(.mask, mask) }
        section.addStream(.anchors, anchors)
        section.addStream(.scales, scales)
        let largest = means.reduce(UInt32(0)) { $0 | UInt32(bitPattern: $1) }
        for plane in 0..<(32 - largest.leadingZeroBitCount + 7) / 8 {
            let shift = UInt32(8 * plane)
            section.addStream(.means, plane: plane, means.map { UInt8(truncatingIfNeeded: UInt32(bitPattern: $0) &>> shift) })
        }
        section.addStream(.codes, codes)
    }
}
