public import KVCodec

/// A sequence's whole cache, to try profiles on.
public struct CacheSample: Sendable {
    public struct Layer: Sendable {
        public var geometry: LayerGeometry
        public var key: TensorView
        public var value: TensorView
        /// Queries of the tokens that come after the cache; nil when attention error is not wanted.
        public var queries: TensorView?

        public init(geometry: LayerGeometry, key: TensorView, value: TensorView, queries: TensorView? = nil) {
            self.geometry = geometry
            self.key = key
            self.value = value
            self.queries = queries
        }
    }

    public var elementType: ElementType
    public var tokenCount: Int
    public var layers: [Layer]

    public init(elementType: ElementType, tokenCount: Int, layers: [Layer]) {
        self.elementType = elementType
        self.tokenCount = tokenCount
        self.layers = layers
    }

    /// Elements of all keys and values.
    public var elementCount: Int {
        layers.reduce(0) { $0 + tokenCount * $1.geometry.elementsPerToken }
    }
}

/// What a profile costs and what it loses on a cache: one row of a comparison.
public struct ProfileReport: Sendable {
    public let profile: Profile
    public let elementCount: Int
    /// Bytes of all page images, the exact ones of the tail included.
    public let storedBytes: Int
    /// NMSE per layer over the whole sequence, of the values in the model's element type.
    public let keyErrors: [Double]
    public let valueErrors: [Double]
    /// Relative L2 distance of attention outputs per layer; empty without queries.
    public let attentionErrors: [Double]

    public var bitsPerElement: Double { 8 * Double(storedBytes) / Double(max(1, elementCount)) }
    public var keyError: Double { Self.mean(keyErrors) }
    public var valueError: Double { Self.mean(valueErrors) }
    /// Mean over layers; nil without queries.
    public var attentionError: Double? { attentionErrors.isEmpty ? nil : Self.mean(attentionErrors) }

    private static func mean(_ values: [Double]) -> Double {
        values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
    }
}

extension CacheSample {
    /// Encodes the cache page by page, as a store would (full pages with the profile, the tail exact), decodes it, and compares.
    public func report(
        profile: Profile, options: EncoderOptions = EncoderOptions(), pageTokens: Int = 256,
        executor: Executor = PageEncoder.serial(count:body:)
    ) throws(CodecError) -> ProfileReport {
        guard pageTokens > 0 else { throw CodecError(.invalidArgument, "pages of \(pageTokens) tokens") }
        var copies = layers.map { LayerCopy($0, elementType: elementType, tokenCount: tokenCount) }
        var storedBytes = 0
        for first in stride(from: 0, to: tokenCount, by: pageTokens) {
            let tokens = first..<min(tokenCount, first + pageTokens)
            let encoder = PageEncoder(profile: tokens.count == pageTokens ? profile : .exact, options: options)
            let page = try encoder.encode(input(tokens), executor: executor)
            storedBytes += page.bytes.count
            try restore(page, tokens: tokens, to: &copies)
        }
        return try compare(copies, profile: profile, storedBytes: storedBytes)
    }

    private func input(_ tokens: Range<Int>) throws(CodecError) -> PageInput {
        let identity = PageIdentity(
            modelFingerprint: .zero, chainHash: .zero, parentHash: .zero, firstToken: tokens.lowerBound, tokens: [])
        var inputs: [LayerInput?] = []
        for layer in layers {
            inputs.append(
                LayerInput(geometry: layer.geometry, key: try layer.key.tokens(tokens), value: try layer.value.tokens(tokens)))
        }
        return PageInput(identity: identity, tokenCount: tokens.count, elementType: elementType, layers: inputs)
    }

    private func restore(_ page: EncodedPage, tokens: Range<Int>, to copies: inout [LayerCopy]) throws(CodecError) {
        let scratch = DecodeScratch()
        var failure: CodecError?
        page.bytes.withUnsafeBytes { bytes in
            do throws(CodecError) {
                let image = try PageImage(parsing: bytes)
                for index in copies.indices {
                    try copies[index].withViews(mutating: tokens) { key, value throws(CodecError) in
                        try image.decode(layer: index, tokens: 0..<tokens.count, key: key, value: value, scratch: scratch)
                    }
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func compare(_ copies: [LayerCopy], profile: Profile, storedBytes: Int) throws(CodecError) -> ProfileReport {
        var keyErrors: [Double] = []
        var valueErrors: [Double] = []
        var attentionErrors: [Double] = []
        for (layer, copy) in zip(layers, copies) {
            try copy.withViews { key, value throws(CodecError) in
                keyErrors.append(normalizedSquaredError(of: key.floats(), against: layer.key.floats()))
                valueErrors.append(normalizedSquaredError(of: value.floats(), against: layer.value.floats()))
                guard let queries = layer.queries else { return }
                let sample = try AttentionSample(queries: queries, key: layer.key, value: layer.value)
                attentionErrors.append(try sample.error(key: key, value: value))
            }
        }
        return ProfileReport(
            profile: profile, elementCount: elementCount, storedBytes: storedBytes, keyErrors: keyErrors,
            valueErrors: valueErrors, attentionErrors: attentionErrors)
    }
}

/// Room for one layer's decoded cache, `[heads, tokens, dim]` in the model's element type.
private struct LayerCopy {
    private let elementType: ElementType
    private let keyLayout: TensorLayout
    private let valueLayout: TensorLayout
    private var key: [UInt8]
    private var value: [UInt8]

    init(_ layer: CacheSample.Layer, elementType: ElementType, tokenCount: Int) {
        let geometry = layer.geometry
        self.elementType = elementType
        keyLayout = .headsFirst(heads: geometry.keyValueHeads, tokens: tokenCount, dim: geometry.keyDim)
        valueLayout = .headsFirst(heads: geometry.keyValueHeads, tokens: tokenCount, dim: geometry.valueDim)
        key = Array(repeating: 0, count: keyLayout.elementCount * elementType.byteCount)
        value = Array(repeating: 0, count: valueLayout.elementCount * elementType.byteCount)
    }

    mutating func withViews(
        mutating tokens: Range<Int>, _ body: (MutableTensorView, MutableTensorView) throws(CodecError) -> Void
    ) throws(CodecError) {
        let (elementType, keyLayout, valueLayout) = (elementType, keyLayout, valueLayout)
        var failure: CodecError?
        key.withUnsafeMutableBytes { key in
            value.withUnsafeMutableBytes { value in
                do throws(CodecError) {
                    let keyView = try MutableTensorView(bytes: key, elementType: elementType, layout: keyLayout)
                    let valueView = try MutableTensorView(bytes: value, elementType: elementType, layout: valueLayout)
                    try body(try keyView.tokens(tokens), try valueView.tokens(tokens))
                } catch {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
    }

    func withViews(_ body: (TensorView, TensorView) throws(CodecError) -> Void) throws(CodecError) {
        var failure: CodecError?
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                do throws(CodecError) {
                    try body(
                        try TensorView(bytes: key, elementType: elementType, layout: keyLayout),
                        try TensorView(bytes: value, elementType: elementType, layout: valueLayout))
                } catch {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
    }
}
