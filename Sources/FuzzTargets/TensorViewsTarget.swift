import KVCodec

/// Views of memory of any shape; those that are accepted are read and written whole, and stored.
func fuzzTensorViews(_ bytes: UnsafeRawBufferPointer) throws {
    var input = FuzzInput(bytes)
    let type = input.pick(ElementType.allCases)
    let key = input.layout()
    let value = input.layout()
    let offset = input.size(upTo: 16)
    let choices = (
        cut: input.number(in: 0...40), profile: input.pick(Profile.all), group: input.pick([8, 16, 32, 64, 7, 0]),
        exact: input.number(in: 0...8), sinks: input.number(in: 0...40)
    )
    // Memory of exactly so many bytes, so that a sanitizer sees the first byte past it.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: input.number(in: 0...16_384), alignment: 1)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0x3F)
    let contents = input.bytes(memory.count)
    memory.copyMemory(from: contents)
    try allowing(CodecError.self) {
        let keys = try view(of: memory, offset, type, key)
        let values = try view(of: memory, offset, type, value)
        guard keys.layout.elementCount <= 1 << 14, values.layout.elementCount <= 1 << 14 else { return }
        _ = (keys.floats(), values.floats())
        _ = try keys.tokens(0..<choices.cut).floats()
        try copyThroughOwn(keys)
        try store(keys, values, choices.profile, group: choices.group, exact: choices.exact, sinks: choices.sinks)
    }
}

private func view(
    of memory: UnsafeMutableRawBufferPointer, _ offset: Int, _ type: ElementType, _ layout: TensorLayout
) throws -> TensorView {
    try TensorView(bytes: UnsafeRawBufferPointer(memory), offset: offset, elementType: type, layout: layout)
}

/// Copies a tensor to contiguous memory: the same numbers, whatever its strides.
private func copyThroughOwn(_ tensor: TensorView) throws {
    let layout = TensorLayout.tokensFirst(heads: tensor.heads, tokens: tensor.tokens, dim: tensor.dim)
    let memory = UnsafeMutableRawBufferPointer.allocate(
        byteCount: layout.elementCount * tensor.elementType.byteCount, alignment: 1)
    defer { memory.deallocate() }
    try tensor.copy(to: MutableTensorView(bytes: memory, elementType: tensor.elementType, layout: layout))
    let copy = try TensorView(bytes: UnsafeRawBufferPointer(memory), elementType: tensor.elementType, layout: layout)
    let isEqual = zip(tensor.floats(), copy.floats()).allSatisfy { $0.bitPattern == $1.bitPattern }
    try require(isEqual, "a copied tensor has other numbers")
}

/// Encodes a page of one layer and decodes it again.
private func store(
    _ keys: TensorView, _ values: TensorView, _ profile: Profile, group: Int, exact: Int, sinks: Int
) throws {
    let geometry = LayerGeometry(keyValueHeads: keys.heads, keyDim: keys.dim, valueDim: values.dim)
    let page = PageInput(
        identity: PageIdentity(
            modelFingerprint: .zero, chainHash: .zero, parentHash: .zero, firstToken: 0, tokens: []),
        tokenCount: keys.tokens, elementType: keys.elementType,
        layers: [LayerInput(geometry: geometry, key: keys, value: values)], exact: sinks > 0 ? [sinks - 1] : [])
    var options = EncoderOptions()
    options.groupSize = group
    options.exactPrefix = exact
    let encoded = try PageEncoder(profile: profile, options: options).encode(page)
    try encoded.bytes.withUnsafeBytes { bytes in
        let image = try checked("a page that was just encoded") { try PageImage(parsing: bytes) }
        try checked("a page that was just encoded") { try image.verifyAll() }
        guard profile.isExact else { return }
        try require(try restored(image, keys, isKey: true) == bits(keys), "exact keys come back otherwise")
        try require(try restored(image, values, isKey: false) == bits(values), "exact values come back otherwise")
    }
}

private func checked<R>(_ what: String, _ body: () throws -> R) throws -> R {
    do { return try body() } catch { throw FuzzFinding("\(what) is refused: \(error)") }
}

private func bits(_ tensor: TensorView) -> [UInt32] { tensor.floats().map(\.bitPattern) }

private func restored(_ image: PageImage, _ like: TensorView, isKey: Bool) throws -> [UInt32] {
    let layout = TensorLayout.headsFirst(heads: like.heads, tokens: like.tokens, dim: like.dim)
    let memory = UnsafeMutableRawBufferPointer.allocate(
        byteCount: layout.elementCount * like.elementType.byteCount, alignment: 1)
    defer { memory.deallocate() }
    let view = try MutableTensorView(bytes: memory, elementType: like.elementType, layout: layout)
    try checked("decoding a page that was just encoded") {
        try image.decode(
            layer: 0, tokens: 0..<like.tokens, key: isKey ? view : nil, value: isKey ? nil : view, scratch: DecodeScratch())
    }
    return bits(try TensorView(bytes: UnsafeRawBufferPointer(memory), elementType: like.elementType, layout: layout))
}

extension FuzzInput {
    /// A shape that mostly fits a small memory, and strides that mostly belong to it.
    fileprivate mutating func layout() -> TensorLayout {
        let (heads, tokens, dim) = (size(upTo: 3), size(upTo: 40), size(upTo: 24))
        var layout =
            flag()
            ? TensorLayout.headsFirst(heads: heads, tokens: tokens, dim: dim)
            : TensorLayout.tokensFirst(heads: heads, tokens: tokens, dim: dim)
        if flag() { layout.headStride = size(upTo: 600) }
        if flag() { layout.tokenStride = size(upTo: 60) }
        if flag() { layout.channelStride = size(upTo: 40) }
        return layout
    }
}
