import CKVKernels

/// Collects the codes and metadata of a part, head by head.
struct PartStreams {
    private let codeBits: Int
    private let group: Int
    private var codes: [UInt8] = []
    private var scales: [UInt8] = []
    private var anchors: [UInt8] = []
    private var means: [Int32] = []

    init(codeBits: Int, group: Int) {
        self.codeBits = codeBits
        self.group = group
    }

    /// Quantizes one head's matrix `[rows][columns]` in groups along the rows.
    mutating func append(_ values: UnsafePointer<Float>, rows: Int, columns: Int, quantizer: kv_quantizer) {
        let result = GroupQuantizer.quantize(values, rows: rows, columns: columns, group: group, quantizer: quantizer)
        let groups = (rows + group - 1) / group
        pack(result.codes, rows: rows, columns: columns)
        anchors.append(UInt8(bitPattern: result.anchor))
        anchors.append(result.steps)
        var headScales = result.scales
        var prediction = [UInt8](repeating: 0, count: columns)
        kv_scales_predict(&headScales, groups, columns, &prediction)
        scales.append(contentsOf: headScales)
        var headMeans = result.means
        kv_means_predict(&headMeans, groups, columns)
        means.append(contentsOf: headMeans)
    }

    private mutating func pack(_ codes: [UInt8], rows: Int, columns: Int) {
        let perByte = 8 / codeBits
        let byteRows = GroupQuantizer.byteRows(rows: rows, group: group, perByte: perByte)
        let start = self.codes.count
        self.codes.append(contentsOf: repeatElement(0, count: byteRows * columns))
        codes.withUnsafeBufferPointer { codes in
            self.codes.withUnsafeMutableBufferPointer { packed in
                guard var from = codes.baseAddress, var to = packed.baseAddress.map({ $0 + start }) else { return }
                for first in stride(from: 0, to: rows, by: group) {
                    let count = min(group, rows - first)
                    to = kv_pack_group(from, count, columns, Int32(codeBits), to)
                    from += count * columns
                }
            }
        }
    }

    /// Adds the part and its streams to a section.
    func add(_ record: PartRecord, mask: [UInt8]?, to section: inout SectionBuilder) {
        section.beginPart(record)
        if let mask { section.addStream(.mask, mask) }
        section.addStream(.anchors, anchors)
        section.addStream(.scales, scales)
        let largest = means.reduce(UInt32(0)) { $0 | UInt32(bitPattern: $1) }
        for plane in 0..<(32 - largest.leadingZeroBitCount + 7) / 8 {
            section.addStream(.means, plane: plane, means.map { UInt8(truncatingIfNeeded: $0 >> (8 * Int32(plane))) })
        }
        section.addStream(.codes, codes)
    }
}
