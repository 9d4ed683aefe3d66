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
    /// NMSE per layer of what was encoded; nil for a layer that the page lacks.
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
        // Whether values are unsafe shows when they are loaded. They hardly ever are: to look before would take a pass of its own.
        var classes = classify(page, executor: executor)
        var layers = try encode(page, classes: classes, positions: positions, executor: executor)
        if layers == nil {
            classes = classes.marking(unsafeTokens(of: page, executor: executor), as: .exact)
            layers = try encode(page, classes: classes, positions: positions, executor: executor)
        }
        guard let layers else { throw .invalid("the page's tensors change while it is encoded") }
        let assembler = PageAssembler(page: page, profile: profile, classes: classes, layers: layers)
        return EncodedPage(bytes: try assembler.assemble(), errors: layers.map { $0?.error })
    }

    /// The layers, or nil when a value that would be quantized is unsafe.
    private func encode(
        _ page: PageInput, classes: TokenClasses, positions: PagePositions, executor: Executor
    ) throws(CodecError) -> [EncodedLayer?]? {
        let tables = rotaryTables(page, positions: positions)
        let slots = LayerSlots(count: page.layers.count)
        executor(page.layers.count) { index in
            guard let layer = page.layers[index] else { return }
            do throws(CodecError) {
                let encoded = try EncodeScratch.with { scratch throws(CodecError) in
                    let encoder = LayerEncoder(
                        profile: profile, options: options, input: layer, classes: classes,
                        rotary: layer.geometry.rotary.flatMap { tables[$0] }, scratch: scratch)
                    return try encoder.encodeMeasured(elementType: page.elementType, positions: positions)
                }
                let carried = page.carriedErrors.isEmpty ? nil : page.carriedErrors[index]
                slots.set(index, .success(encoded.map { EncodedLayer(section: $0.section, error: $0.error + carried) }))
            } catch {
                slots.set(index, .failure(error))
            }
        }
        let results = try slots.take()
        guard zip(page.layers, results).allSatisfy({ ($0 == nil) == ($1 == nil) }) else {
            throw .invalid("the executor did not run every layer")
        }
        let layers = results.map { $0 ?? nil }
        return zip(page.layers, layers).allSatisfy { ($0 == nil) == ($1 == nil) } ? layers : nil
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

/// One place per layer for workers to put their results in, nil for a layer with unsafe values; no two workers share a place.
private final class LayerSlots: @unchecked Sendable {
    private let slots: UnsafeMutableBufferPointer<Result<EncodedLayer?, CodecError>?>

    init(count: Int) {
        slots = .allocate(capacity: count)
        slots.initialize(repeating: nil)
    }

    deinit {
        slots.deinitialize()
        slots.deallocate()
    }

    func set(_ index: Int, _ result: Result<EncodedLayer?, CodecError>) {
        slots[index] = result
    }

    /// What was put there; the outer nil where nothing was.
    func take() throws(CodecError) -> [EncodedLayer??] {
        var layers: [EncodedLayer??] = []
        for slot in slots {
            guard let slot else {
                layers.append(.none)
                continue
            }
            layers.append(.some(try slot.get()))
        }
        return layers
    }
}
