import CKVKernels

/// The error of one layer's keys and values: sum of squared differences over sum of squares.
public struct LayerError: Hashable, Sendable {
    public var key: Float
    public var value: Float

    public init(key: Float, value: Float) {
        self.key = key
        self.value = value
    }
}

extension LayerError {
    /// Errors of one encoding after another add up, nearly: they are not correlated.
    static func + (error: LayerError, carried: LayerError?) -> LayerError {
        LayerError(key: error.key + (carried?.key ?? 0), value: error.value + (carried?.value ?? 0))
    }
}

/// A page image in memory, ready to store.
public struct EncodedPage: Sendable {
    /// The whole image.
    public let bytes: [UInt8]
    /// NMSE per layer, measured by decoding what was encoded; nil for a layer that the page lacks.
    public let errors: [LayerError?]

    package init(bytes: [UInt8], errors: [LayerError?]) {
        self.bytes = bytes
        self.errors = errors
    }

    /// Mean over the layers that the page holds; 0 when it holds none.
    public var meanError: LayerError { errors.mean }
}

extension [LayerError?] {
    var mean: LayerError {
        let present = compactMap { $0 }
        guard !present.isEmpty else { return LayerError(key: 0, value: 0) }
        let count = Float(present.count)
        return LayerError(key: present.reduce(0) { $0 + $1.key } / count, value: present.reduce(0) { $0 + $1.value } / count)
    }
}

/// Runs `body(0)`, ... `body(count - 1)`, each once, in any order and on any threads, and returns when all have returned.
public typealias Executor = (_ count: Int, _ body: @Sendable (Int) -> Void) -> Void

/// Encodes pages with one profile.
///
/// A page is encoded from nothing but its input: the same input gives the same bytes, whatever the executor (and the same zstd
/// library).
public struct PageEncoder: Sendable {
    public let profile: Profile
    public let options: EncoderOptions

    public init(profile: Profile, options: EncoderOptions = EncoderOptions()) {
        self.profile = profile
        self.options = options
    }

    /// Runs layer after layer on the calling thread.
    public static func serial(count: Int, body: @Sendable (Int) -> Void) {
        for index in 0..<count { body(index) }
    }

    /// Encodes a page.
    /// - Parameter executor: runs the work of the layers, one call per layer.
    /// - Throws: `CodecError.Code.invalidArgument` when shapes, types or options do not fit together.
    public func encode(_ page: PageInput, executor: Executor = PageEncoder.serial(count:body:)) throws(CodecError) -> EncodedPage
    {
        try options.check()
        try page.check()
        let positions = PagePositions(firstPosition: page.identity.firstToken, streams: page.positions)
        let classes = classify(page, executor: executor)
        let tables = rotaryTables(page, positions: positions)
        let slots = LayerSlots(count: page.layers.count)
        executor(page.layers.count) { index in
            guard let layer = page.layers[index] else { return }
            let encoder = LayerEncoder(
                profile: profile, options: options, input: layer, classes: classes,
                rotary: layer.geometry.rotary.flatMap { tables[$0] })
            do throws(CodecError) {
                let encoded = try encoder.encodeMeasured(elementType: page.elementType, positions: positions)
                let carried = page.carriedErrors.isEmpty ? nil : page.carriedErrors[index]
                slots.set(index, .success(EncodedLayer(section: encoded.section, error: encoded.error + carried)))
            } catch {
                slots.set(index, .failure(error))
            }
        }
        let layers = try slots.take()
        guard zip(page.layers, layers).allSatisfy({ ($0 == nil) == ($1 == nil) }) else {
            throw .invalid("the executor did not run every layer")
        }
        let assembler = PageAssembler(page: page, profile: profile, classes: classes, layers: layers)
        return EncodedPage(bytes: try assembler.assemble(), errors: layers.map { $0?.error })
    }

    /// The angles that un-rotating takes, once per distinct rotary embedding.
    private func rotaryTables(_ page: PageInput, positions: PagePositions) -> [RotaryParameters: RotaryTable] {
        guard options.unrotatesKeys, profile.key?.unrotates == true else { return [:] }
        var tables: [RotaryParameters: RotaryTable] = [:]
        for case let parameters? in page.layers.map({ $0?.geometry.rotary }) where tables[parameters] == nil {
            tables[parameters] = RotaryTable(parameters: parameters, positions: positions, tokens: 0..<page.tokenCount)
        }
        return tables
    }
}

/// An encoded layer: its section and the error measured on it.
struct EncodedLayer: Sendable {
    let section: [UInt8]
    let error: LayerError
}

/// One place per layer for workers to put their results in; no two workers share a place.
private final class LayerSlots: @unchecked Sendable {
    private let slots: UnsafeMutableBufferPointer<Result<EncodedLayer, CodecError>?>

    init(count: Int) {
        slots = .allocate(capacity: count)
        slots.initialize(repeating: nil)
    }

    deinit {
        slots.deinitialize()
        slots.deallocate()
    }

    func set(_ index: Int, _ result: Result<EncodedLayer, CodecError>) {
        slots[index] = result
    }

    func take() throws(CodecError) -> [EncodedLayer?] {
        var layers: [EncodedLayer?] = []
        for slot in slots { layers.append(try slot?.get()) }
        return layers
    }
}

extension LayerEncoder {
    /// Encodes the layer, decodes it again and measures the difference.
    func encodeMeasured(elementType: ElementType, positions: PagePositions) throws(CodecError) -> EncodedLayer {
        let section = encode(compressor: try Compressor())
        guard !profile.isExact else { return EncodedLayer(section: section, error: LayerError(key: 0, value: 0)) }
        let scratch = DecodeScratch()
        var error = LayerError(key: 0, value: 0)
        error.key = try measure(.key, input.key, of: section, elementType, positions, scratch)
        error.value = try measure(.value, input.value, of: section, elementType, positions, scratch)
        return EncodedLayer(section: section, error: error)
    }

    private func measure(
        _ tensor: TensorKind, _ view: TensorView, of section: [UInt8], _ elementType: ElementType, _ positions: PagePositions,
        _ scratch: DecodeScratch
    ) throws(CodecError) -> Float {
        var decoded = [Float](repeating: 0, count: view.heads * view.tokens * view.dim)
        var failure: CodecError?
        section.withUnsafeBytes { section in
            decoded.withUnsafeMutableBytes { bytes in
                do throws(CodecError) {
                    let output = try MutableTensorView(
                        bytes: bytes, elementType: .float32,
                        layout: .headsFirst(heads: view.heads, tokens: view.tokens, dim: view.dim))
                    let decoder = LayerDecoder(
                        section: try SectionView(
                            parsing: section, geometry: input.geometry, elementType: elementType,
                            present: classes.present(in: held), scratch: scratch),
                        geometry: input.geometry, elementType: elementType, classes: classes, positions: positions, held: held)
                    try decoder.decode(tensor, tokens: held, to: output, scratch: scratch)
                } catch {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
        let error = NormalizedError.between(view, decoded)
        return error == 0 && !Self.isIdentical(view, decoded) ? NormalizedError.least : error
    }

    /// Whether values that differ by nothing have the same bits too: 0 and -0 do not.
    private static func isIdentical(_ view: TensorView, _ decoded: [Float]) -> Bool {
        let finite = view.floats().enumerated().lazy.filter { $0.element.isFinite }
        return finite.allSatisfy { $0.element.bitPattern == decoded[$0.offset].bitPattern }
    }
}

/// NMSE of decoded floats against a tensor.
enum NormalizedError {
    /// What is said of a tensor that does not come back bit for bit although its error is 0, or too small for a float: 0 is kept for
    /// those that do. Still above 0 as the mean over the most layers.
    static let least = Float.leastNormalMagnitude

    /// Sum of squared differences over sum of squares, over the finite values of `original`. 0 when both sums are.
    static func between(_ original: TensorView, _ decoded: [Float]) -> Float {
        var rows = HeadRows(heads: original.heads, tokens: original.tokens, dim: original.dim)
        rows.load(original, tokens: (0..<UInt32(original.tokens)).map { $0 })
        var error = [Double](repeating: 0, count: original.dim)
        var energy = [Double](repeating: 0, count: original.dim)
        let size = original.tokens * original.dim
        decoded.withUnsafeBufferPointer { decoded in
            for head in 0..<original.heads {
                rows.withHead(head) { exact in
                    kv_add_errors(
                        exact, decoded.baseAddress.map { $0 + head * size }, original.tokens, original.dim, &error, &energy)
                }
            }
        }
        let sums = (error.reduce(0, +), energy.reduce(0, +))
        return sums.0 == 0 ? 0 : min(Float(sums.0 / sums.1), .greatestFiniteMagnitude)
    }
}
