import CKVKernels

/// A page image in memory that the caller owns, checked and ready to decode. It copies none of the image's tensors.
///
/// The memory must stay as it is while the image is in use. Parsing touches and verifies only header and prologue, so that of
/// an image on disk one layer can be read alone: `layers[n].byteRange` says which bytes that takes.
public struct PageImage: @unchecked Sendable {
    /// What the page says about one of its layers.
    public struct Layer: Hashable, Sendable {
        public let geometry: LayerGeometry
        /// Tokens of the page that the layer holds.
        public let tokens: Range<Int>
        /// NMSE measured when the page was encoded.
        public let error: LayerError
        /// Where the layer's section lies in the image.
        public let byteRange: Range<Int>
        let checksum: UInt64
    }

    private(set) var bytes: UnsafeRawBufferPointer
    /// The element type that exact values have.
    public let elementType: ElementType
    /// The number of the profile that encoded the page.
    public let profileID: UInt16
    public let identity: PageIdentity
    public let tokenCount: Int
    /// One entry per layer of the model; nil for a layer that the page lacks.
    public let layers: [Layer?]
    /// Length of header and prologue: the bytes that parsing touches.
    public let prologueByteCount: Int
    let classes: TokenClasses
    let positions: PagePositions
    private let header: PageHeader

    /// Parses an image: all of `bytes`.
    /// - Throws: `CodecError` with `.notAPage`, `.newerFormat` or `.damaged`.
    public init(parsing bytes: UnsafeRawBufferPointer) throws(CodecError) {
        try self.init(parsing: bytes, header: PageHeader(checking: bytes, imageByteCount: bytes.count))
    }

    /// Parses header and prologue of an image of which nothing else need be in memory. Sections are then given to
    /// `decode(layer:tokens:key:value:scratch:section:)`; nothing else that reads them may be called.
    /// - Throws: `CodecError` with `.notAPage`, `.newerFormat` or `.damaged`.
    package init(parsingPrologue bytes: UnsafeRawBufferPointer, imageByteCount: Int) throws(CodecError) {
        try self.init(parsing: bytes, header: PageHeader(checking: bytes, imageByteCount: imageByteCount))
    }

    /// Parses an image: all of `bytes`.
    /// - Parameter known: the same image, parsed before, wherever it was then. What lies behind an equal header, which has the
    ///   checksum of the whole image, is taken from it in place of parsing it again.
    /// - Throws: `CodecError` with `.notAPage`, `.newerFormat` or `.damaged`.
    public init(parsing bytes: UnsafeRawBufferPointer, known: PageImage) throws(CodecError) {
        let header = try PageHeader(checking: bytes, imageByteCount: bytes.count)
        if known.header == header {
            self = known
            self.bytes = bytes
        } else {
            try self.init(parsing: bytes, header: header)
        }
    }

    private init(parsing bytes: UnsafeRawBufferPointer, header: PageHeader) throws(CodecError) {
        guard try Checksum.of(bytes, 0..<48, then: PageHeader.byteCount..<Int(header.prologueBytes)) == header.prologueChecksum
        else { throw .damaged("the page's header or prologue does not match its checksum") }
        var prologue = try PrologueReader(bytes, header: header)
        let contents = try prologue.read()
        self.bytes = bytes
        elementType = contents.elementType
        profileID = header.profileId
        identity = contents.identity
        tokenCount = Int(header.tokenCount)
        layers = contents.layers
        prologueByteCount = Int(header.prologueBytes)
        classes = contents.classes
        positions = contents.positions
        self.header = header
    }

    /// The profile that encoded the page; nil when this version does not know it. Decoding does not need it.
    public var profile: Profile? { Profile.numbered(profileID) }

    /// Length of the image.
    public var byteCount: Int { Int(header.imageBytes) }

    /// NMSE of keys and values, mean over the layers that the page holds.
    public var meanError: LayerError { layers.map { $0?.error }.mean }

    /// The class of each token.
    public var tokenClasses: [TokenClass] { classes.bytes.map { TokenClass(rawValue: $0) ?? .base } }

    /// Explicit position ids, `[stream][token]`; nil when token `i` is at `identity.firstToken + i`.
    public var explicitPositions: [[Int32]]? { positions.streams }

    // MARK: - Verification

    /// Checks the checksum of one layer's section.
    /// - Throws: `.damaged` when it does not match, `.absent` when the page lacks the layer.
    public func verify(layer index: Int) throws(CodecError) {
        try verify(layer: index, section: sectionBytes(try presentLayer(index)))
    }

    private func verify(layer index: Int, section bytes: UnsafeRawBufferPointer) throws(CodecError) {
        let layer = try presentLayer(index)
        guard bytes.count == layer.byteRange.count, Checksum.of(bytes) == layer.checksum else {
            throw .damaged("layer \(index) does not match its checksum")
        }
    }

    /// Checks the checksum of the whole image.
    public func verifyChecksum() throws(CodecError) {
        guard try Checksum.of(bytes, 0..<56, then: PageHeader.byteCount..<bytes.count) == header.imageChecksum else {
            throw .damaged("the page does not match its checksum")
        }
    }

    /// Checks every checksum and parses every section; touches the whole image.
    public func verifyAll() throws(CodecError) {
        try verifyChecksum()
        let scratch = DecodeScratch()
        for index in layers.indices where layers[index] != nil {
            try verify(layer: index)
            _ = try section(index, scratch: scratch)
        }
    }

    /// The length of header and prologue as the header says it, at most that of the image; 0 for no page image. Touches the header only.
    package static func prologueByteCount(of bytes: UnsafeRawBufferPointer) -> Int {
        PageHeader(at: 0, of: bytes).map { min(Int($0.prologueBytes), bytes.count) } ?? 0
    }

    /// The bytes that decoding some layers reads: their sections, and what lies between them.
    package func bytes(ofLayers wanted: Range<Int>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[byteRange(ofLayers: wanted)])
    }

    /// Where those bytes lie in the image.
    package func byteRange(ofLayers wanted: Range<Int>) -> Range<Int> {
        let sections = layers[wanted.clamped(to: layers.indices)].compactMap { $0?.byteRange }
        guard let start = sections.map(\.lowerBound).min(), let end = sections.map(\.upperBound).max() else { return 0..<0 }
        return start..<end
    }

    // MARK: - Decoding

    /// Decodes some tokens of one layer into the caller's memory.
    /// - Parameters:
    ///   - tokens: tokens of the page, all of which the layer holds.
    ///   - key, value: where they go: `[keyValueHeads, tokens.count, dim]` of any element type; nil for what is not wanted.
    ///     Exact tokens are bit-identical in the page's own element type, and rounded to nearest in others.
    ///   - verifying: check the section's checksum first. Turn it off only for a section already verified.
    /// - Throws: `.absent` when the page does not hold the tokens, `.damaged` when the section is; then the outputs may be
    ///   partly written.
    public func decode(
        layer index: Int, tokens: Range<Int>, key: MutableTensorView?, value: MutableTensorView?, scratch: DecodeScratch,
        verifying: Bool = true
    ) throws(CodecError) {
        let bytes = sectionBytes(try presentLayer(index))
        try decode(layer: index, tokens: tokens, key: key, value: value, scratch: scratch, section: bytes, verifying: verifying)
    }

    /// Like ``decode(layer:tokens:key:value:scratch:verifying:)``, of a section that lies elsewhere than in the image.
    package func decode(
        layer index: Int, tokens: Range<Int>, key: MutableTensorView?, value: MutableTensorView?, scratch: DecodeScratch,
        section bytes: UnsafeRawBufferPointer, verifying: Bool = true
    ) throws(CodecError) {
        let layer = try presentLayer(index)
        guard tokens.lowerBound >= layer.tokens.lowerBound, tokens.upperBound <= layer.tokens.upperBound else {
            throw CodecError(.absent, "layer \(index) of the page holds tokens \(layer.tokens), not \(tokens)")
        }
        if verifying { try verify(layer: index, section: bytes) }
        let decoder = LayerDecoder(
            section: try section(layer, bytes, scratch: scratch), geometry: layer.geometry, elementType: elementType,
            classes: classes,
            positions: positions, held: layer.tokens)
        for (output, dim) in [(key, layer.geometry.keyDim), (value, layer.geometry.valueDim)] {
            guard let output else { continue }
            guard output.heads == layer.geometry.keyValueHeads, output.tokens == tokens.count, output.dim == dim else {
                throw .invalid(
                    "output is [\(output.heads), \(output.tokens), \(output.dim)], layer \(index) gives "
                        + "[\(layer.geometry.keyValueHeads), \(tokens.count), \(dim)]")
            }
        }
        defer { kv_finish_stores() }
        if let key { try decoder.decode(.key, tokens: tokens, to: key, scratch: scratch) }
        if let value { try decoder.decode(.value, tokens: tokens, to: value, scratch: scratch) }
    }

    func presentLayer(_ index: Int) throws(CodecError) -> Layer {
        guard layers.indices.contains(index) else {
            throw .invalid("layer \(index) of a page of \(layers.count) layers")
        }
        guard let layer = layers[index] else { throw CodecError(.absent, "the page lacks layer \(index)") }
        return layer
    }

    func section(_ index: Int, scratch: DecodeScratch) throws(CodecError) -> SectionView {
        let layer = try presentLayer(index)
        return try section(layer, sectionBytes(layer), scratch: scratch)
    }

    private func section(
        _ layer: Layer, _ bytes: UnsafeRawBufferPointer, scratch: DecodeScratch
    ) throws(CodecError) -> SectionView {
        try SectionView(
            parsing: bytes, geometry: layer.geometry, elementType: elementType,
            present: classes.present(in: layer.tokens), scratch: scratch)
    }

    private func sectionBytes(_ layer: Layer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[layer.byteRange])
    }
}
