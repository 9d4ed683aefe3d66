import KVCodec
import Safetensors
import Testing

/// Memory that a test owns, with a tensor somewhere in it.
struct OwnedTensor {
    var bytes: [UInt8]
    let elementType: ElementType
    let offset: Int
    let layout: TensorLayout

    /// A tensor of `values`, contiguous `[heads, tokens, dim]`, laid out in one of several ways within memory filled with 0xA5.
    init(
        values: [Float], heads: Int, tokens: Int, dim: Int, elementType: ElementType, arrangement: Arrangement = .headsFirst
    ) {
        self.init(heads: heads, tokens: tokens, dim: dim, elementType: elementType, arrangement: arrangement)
        for (index, value) in values.enumerated() { setBits(index, elementType.bits(of: value)) }
    }

    init(heads: Int, tokens: Int, dim: Int, elementType: ElementType, arrangement: Arrangement = .headsFirst) {
        self.elementType = elementType
        layout = arrangement.layout(heads: heads, tokens: tokens, dim: dim)
        offset = arrangement == .headsFirst ? 0 : 3
        let last = (heads - 1) * layout.headStride + (tokens - 1) * layout.tokenStride + (dim - 1) * layout.channelStride
        bytes = Array(repeating: 0xA5, count: offset + (last + 1) * elementType.byteCount)
    }

    enum Arrangement: CaseIterable {
        case headsFirst, tokensFirst, padded, channelsFirst

        func layout(heads: Int, tokens: Int, dim: Int) -> TensorLayout {
            switch self {
            case .headsFirst: .headsFirst(heads: heads, tokens: tokens, dim: dim)
            case .tokensFirst: .tokensFirst(heads: heads, tokens: tokens, dim: dim)
            case .padded:
                TensorLayout(
                    heads: heads, tokens: tokens, dim: dim, headStride: tokens * (dim + 5) + 7, tokenStride: dim + 5)
            case .channelsFirst:
                TensorLayout(
                    heads: heads, tokens: tokens, dim: dim, headStride: tokens * dim, tokenStride: 1, channelStride: tokens)
            }
        }
    }

    var count: Int { layout.elementCount }

    /// Byte offset of element `index` of the contiguous order.
    private func place(_ index: Int) -> Int {
        let channel = index % layout.dim
        let token = index / layout.dim % layout.tokens
        let head = index / layout.dim / layout.tokens
        let element = head * layout.headStride + token * layout.tokenStride + channel * layout.channelStride
        return offset + element * elementType.byteCount
    }

    func bits(_ index: Int) -> UInt32 {
        let start = place(index)
        return (0..<elementType.byteCount).reduce(0) { $0 | UInt32(bytes[start + $1]) << (8 * $1) }
    }

    mutating func setBits(_ index: Int, _ bits: UInt32) {
        let start = place(index)
        for byte in 0..<elementType.byteCount { bytes[start + byte] = UInt8(truncatingIfNeeded: bits >> (8 * byte)) }
    }

    var allBits: [UInt32] { (0..<count).map { bits($0) } }

    func withView<R>(_ body: (TensorView) throws -> R) throws -> R {
        try bytes.withUnsafeBytes { bytes in
            try body(try TensorView(bytes: bytes, offset: offset, elementType: elementType, layout: layout))
        }
    }

    mutating func withMutableView<R>(_ body: (MutableTensorView) throws -> R) throws -> R {
        let (offset, elementType, layout) = (offset, elementType, layout)
        return try bytes.withUnsafeMutableBytes { bytes in
            try body(try MutableTensorView(bytes: bytes, offset: offset, elementType: elementType, layout: layout))
        }
    }

    func floats() throws -> [Float] { try withView { $0.floats() } }
}

extension ElementType {
    /// The bits of `value` rounded to nearest even, computed without the kernels.
    func bits(of value: Float) -> UInt32 {
        switch self {
        case .float32: return value.bitPattern
        case .bfloat16:
            guard value.isFinite else { return value.bitPattern >> 16 | (value.isNaN ? 0x40 : 0) }
            let bits = value.bitPattern
            return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        case .float16: return UInt32(Float16(value).bitPattern)
        }
    }

    func float(of bits: UInt32) -> Float {
        switch self {
        case .float32: Float(bitPattern: bits)
        case .bfloat16: Float(bitPattern: bits << 16)
        case .float16: Float(Float16(bitPattern: UInt16(bits)))
        }
    }
}

/// Random values like a cache's: channels of different offsets and spreads.
func cacheLikeValues(heads: Int, tokens: Int, dim: Int, using generator: inout some RandomNumberGenerator) -> [Float] {
    var values: [Float] = []
    values.reserveCapacity(heads * tokens * dim)
    for _ in 0..<heads {
        let offsets = (0..<dim).map { _ in Float.random(in: -2...2, using: &generator) }
        let spreads = (0..<dim).map { _ in Float.random(in: 0.1...2, using: &generator) }
        for _ in 0..<tokens {
            for channel in 0..<dim {
                let noise = (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1...1, using: &generator) }
                values.append(offsets[channel] + spreads[channel] * noise)
            }
        }
    }
    return values
}

/// A page's tensors, owned.
struct OwnedPage {
    struct Layer {
        var geometry: LayerGeometry
        var firstToken: Int
        var key: OwnedTensor
        var value: OwnedTensor
    }

    var identity = PageIdentity(
        modelFingerprint: Digest(bytes: Array(repeating: 1, count: 32)) ?? .zero,
        chainHash: Digest(bytes: Array(repeating: 2, count: 32)) ?? .zero,
        parentHash: Digest(bytes: Array(repeating: 3, count: 32)) ?? .zero, firstToken: 0, tokens: [7, 8, 9])
    var tokenCount: Int
    var elementType: ElementType
    var layers: [Layer?]
    var positions: [[Int32]]?
    var salient: [Int] = []
    var exact: [Int] = []

    func encode(
        _ profile: Profile, options: EncoderOptions = EncoderOptions(), executor: Executor = PageEncoder.serial(count:body:)
    ) throws -> EncodedPage {
        try withInput { try PageEncoder(profile: profile, options: options).encode($0, executor: executor) }
    }

    func withInput<R>(_ body: (PageInput) throws -> R) throws -> R {
        try collect(layers[...], []) { inputs in
            try body(
                PageInput(
                    identity: identity, tokenCount: tokenCount, elementType: elementType, layers: inputs, positions: positions,
                    salient: salient, exact: exact))
        }
    }

    private func collect<R>(_ rest: ArraySlice<Layer?>, _ inputs: [LayerInput?], _ body: ([LayerInput?]) throws -> R) throws -> R
    {
        guard let next = rest.first else { return try body(inputs) }
        guard let layer = next else { return try collect(rest.dropFirst(), inputs + [nil], body) }
        return try layer.key.withView { key in
            try layer.value.withView { value in
                let input = LayerInput(geometry: layer.geometry, key: key, value: value, firstToken: layer.firstToken)
                return try collect(rest.dropFirst(), inputs + [input], body)
            }
        }
    }

    /// One layer of random values.
    static func random(
        heads: Int = 2, tokens: Int, keyDim: Int = 16, valueDim: Int = 16, layers: Int = 1, elementType: ElementType = .bfloat16,
        rotary: RotaryParameters? = nil, arrangement: OwnedTensor.Arrangement = .headsFirst, seed: UInt64
    ) -> OwnedPage {
        var generator = SplitMix64(seed: seed)
        let made = (0..<layers).map { _ in
            Layer(
                geometry: LayerGeometry(keyValueHeads: heads, keyDim: keyDim, valueDim: valueDim, rotary: rotary), firstToken: 0,
                key: OwnedTensor(
                    values: cacheLikeValues(heads: heads, tokens: tokens, dim: keyDim, using: &generator), heads: heads,
                    tokens: tokens, dim: keyDim, elementType: elementType, arrangement: arrangement),
                value: OwnedTensor(
                    values: cacheLikeValues(heads: heads, tokens: tokens, dim: valueDim, using: &generator), heads: heads,
                    tokens: tokens, dim: valueDim, elementType: elementType, arrangement: arrangement))
        }
        return OwnedPage(tokenCount: tokens, elementType: elementType, layers: made)
    }
}

extension EncodedPage {
    func withImage<R>(_ body: (PageImage) throws -> R) throws -> R {
        try bytes.withUnsafeBytes { try body(try PageImage(parsing: $0)) }
    }

    /// Decodes tokens of a layer into fresh memory.
    func decode(
        layer: Int, tokens: Range<Int>? = nil, as elementType: ElementType, arrangement: OwnedTensor.Arrangement = .headsFirst
    ) throws -> (key: OwnedTensor, value: OwnedTensor) {
        try withImage { image in
            let held = try #require(image.layers[layer])
            let tokens = tokens ?? held.tokens
            let heads = held.geometry.keyValueHeads
            var key = OwnedTensor(
                heads: heads, tokens: tokens.count, dim: held.geometry.keyDim, elementType: elementType, arrangement: arrangement)
            var value = OwnedTensor(
                heads: heads, tokens: tokens.count, dim: held.geometry.valueDim, elementType: elementType,
                arrangement: arrangement)
            try key.withMutableView { key in
                try value.withMutableView { value in
                    try image.decode(layer: layer, tokens: tokens, key: key, value: value, scratch: DecodeScratch())
                }
            }
            return (key, value)
        }
    }
}

/// The repository's root, from where this file was compiled.
let repositoryRoot = String(#filePath.prefix(upTo: #filePath.range(of: "/Tests/KVCodecTests/")))

extension String {
    fileprivate func range(of part: String) -> String.Index {
        var index = endIndex
        while index > startIndex, !self[index...].hasPrefix(part) { index = self.index(before: index) }
        return index
    }
}
