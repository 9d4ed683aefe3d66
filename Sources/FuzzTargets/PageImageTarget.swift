import KVCodec

func fuzzPageImage(_ bytes: UnsafeRawBufferPointer) throws {
    try decodeEverything(bytes)
    // What a hostile writer could send, which knows how to compute a checksum.
    var copy = Array(bytes)
    copy.withUnsafeMutableBytes { resealPageImage($0) }
    try copy.withUnsafeBytes { try decodeEverything($0) }
}

/// Decoding takes memory for what the image says it holds; what a store would not take is left out.
private let elementsMax = 1 << 18

private func decodeEverything(_ bytes: UnsafeRawBufferPointer) throws {
    try allowing(CodecError.self) {
        let image = try PageImage(parsing: bytes)
        try? image.verifyAll()
        let scratch = DecodeScratch()
        for (index, layer) in image.layers.enumerated() {
            guard let layer, layer.geometry.elementsPerToken * layer.tokens.count <= elementsMax else { continue }
            try allowing(CodecError.self) { _ = try image.describe(layer: index) }
            try allowing(CodecError.self) { try decode(image, index, layer, scratch) }
        }
    }
}

private func decode(_ image: PageImage, _ index: Int, _ layer: PageImage.Layer, _ scratch: DecodeScratch) throws {
    // Any part of the tokens, in any type; taken from the image so that the same bytes do the same.
    let selector = Int(image.identity.firstToken & 0xFF)
    let start = layer.tokens.lowerBound + selector % layer.tokens.count
    let tokens = start..<layer.tokens.upperBound
    let type: ElementType = [.float32, .float16, .bfloat16][selector % 3]
    let geometry = layer.geometry
    func with(_ dim: Int, _ body: (MutableTensorView) throws -> Void) throws {
        let layout = TensorLayout.headsFirst(heads: geometry.keyValueHeads, tokens: tokens.count, dim: dim)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: layout.elementCount * type.byteCount, alignment: 1)
        defer { memory.deallocate() }
        try body(try MutableTensorView(bytes: memory, elementType: type, layout: layout))
    }
    try with(geometry.keyDim) { key in
        try with(geometry.valueDim) { value in
            try image.decode(layer: index, tokens: tokens, key: key, value: value, scratch: scratch)
        }
    }
}

/// Makes the checksums of sections and prologue fit the bytes, as far as the tables can be followed.
package func resealPageImage(_ image: UnsafeMutableRawBufferPointer) {
    let bytes = UnsafeRawBufferPointer(image)
    guard var header = PageHeader(at: 0, of: bytes) else { return }
    let prologue = Int(header.prologueBytes)
    guard prologue >= PageHeader.byteCount, prologue <= bytes.count else { return }
    for index in 0..<Int(header.layerCount) {
        let offset = prologue - (Int(header.layerCount) - index) * SectionEntry.byteCount
        guard offset >= 0, var entry = SectionEntry(at: offset, of: bytes) else { continue }
        let (start, count) = (Int(truncatingIfNeeded: entry.sectionOffset), Int(entry.sectionBytes))
        guard start >= 0, start <= bytes.count, count <= bytes.count - start else { continue }
        entry.checksum = Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]))
        entry.store(at: offset, in: image)
    }
    guard let checksum = try? Checksum.of(bytes, 0..<48, then: 64..<prologue) else { return }
    header.prologueChecksum = checksum
    header.store(at: 0, in: image)
    guard let whole = try? Checksum.of(bytes, 0..<56, then: PageHeader.byteCount..<bytes.count) else { return }
    header.imageChecksum = whole
    header.store(at: 0, in: image)
}
