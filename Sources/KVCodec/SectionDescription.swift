/// What a layer's section holds, for people and reports.
public struct SectionDescription: Hashable, Sendable {
    public struct Stream: Hashable, Sendable {
        public let kind: StreamKind
        public let encoding: StreamEncoding
        public let plane: Int
        /// Its length in the section; of a shared stream, a part of the shared frame as large as its part of the frame's contents.
        public let storedBytes: Int
    }

    public struct Part: Hashable, Sendable {
        public let tensor: TensorKind
        public let tokenClasses: Set<TokenClass>
        public let scheme: Scheme
        public let codeBits: Int
        public let flags: PartFlags
        public let channelSet: ChannelSet
        public let groupSize: Int
        /// Channels per head in this part.
        public let channels: Int
        public let streams: [Stream]

        public var storedBytes: Int { streams.reduce(0) { $0 + $1.storedBytes } }
    }

    public let geometry: LayerGeometry
    /// Tokens of the page that the layer holds.
    public let tokens: Range<Int>
    public let parts: [Part]
    /// Per head, the key channels that keep 2 bits, ascending; empty when the keys are not of mixed precision.
    public let anomalousChannels: [[Int]]
    public let error: LayerError
    /// Length of the section, tables included.
    public let storedBytes: Int

    /// Stored bytes of all streams of a kind.
    public func storedBytes(of kind: StreamKind, in tensor: TensorKind? = nil) -> Int {
        parts.filter { tensor == nil || $0.tensor == tensor }.flatMap(\.streams).filter { $0.kind == kind }
            .reduce(0) { $0 + $1.storedBytes }
    }
}

extension PageImage {
    /// Describes a layer's section. Touches its tables and metadata, not its codes; verifies nothing.
    public func describe(layer index: Int) throws(CodecError) -> SectionDescription {
        let layer = try presentLayer(index)
        let scratch = DecodeScratch()
        let section = try section(index, scratch: scratch)
        defer { withExtendedLifetime(scratch) {} }
        var anomalous: [[Int]] = []
        if let part = section.parts.first(where: { $0.channelSet == .masked && $0.tensor == .key }) {
            let heads = layer.geometry.keyValueHeads
            let masks = try ChannelMasks(part, heads: heads, dim: layer.geometry.keyDim, scratch: scratch)
            anomalous = (0..<heads).map { head in (0..<part.channels).map { Int(masks.masked[head * part.channels + $0]) } }
        }
        return SectionDescription(
            geometry: layer.geometry, tokens: layer.tokens, parts: section.parts.map { SectionDescription.Part($0) },
            anomalousChannels: anomalous, error: layer.error, storedBytes: layer.byteRange.count)
    }
}

extension SectionDescription.Part {
    init(_ part: PartView) {
        tensor = part.tensor
        tokenClasses = Set(TokenClass.allCases.filter { part.classes & $0.bit != 0 })
        scheme = part.scheme
        codeBits = part.codeBits
        flags = part.flags
        channelSet = part.channelSet
        groupSize = part.group
        channels = part.channels
        streams = part.streams.map {
            SectionDescription.Stream(
                kind: $0.kind, encoding: $0.isShared ? .shared : $0.encoding, plane: $0.plane, storedBytes: $0.storedBytes)
        }
    }
}
