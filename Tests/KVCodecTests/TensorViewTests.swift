import KVCodec
import Testing

@Suite struct TensorViewTests {
    private func view(_ byteCount: Int, offset: Int = 0, _ layout: TensorLayout) throws -> TensorView {
        try Array(repeating: UInt8(0), count: byteCount).withUnsafeBytes {
            try TensorView(bytes: $0, offset: offset, elementType: .bfloat16, layout: layout)
        }
    }

    @Test func acceptsWhatFits() throws {
        let exact = try view(2 * 3 * 4 * 2, .headsFirst(heads: 2, tokens: 3, dim: 4))
        #expect(exact.layout.elementCount == 24)
        #expect(try exact.tokens(1..<3).tokens == 2)
        #expect(try exact.tokens(3..<3).tokens == 0)
        _ = try view(0, .headsFirst(heads: 2, tokens: 0, dim: 4))
        _ = try view(2, TensorLayout(heads: 9, tokens: 9, dim: 9, headStride: 0, tokenStride: 0, channelStride: 0))
    }

    @Test(arguments: [
        TensorLayout(heads: 2, tokens: 3, dim: 4, headStride: 13, tokenStride: 4),
        TensorLayout(heads: 2, tokens: 3, dim: 4, headStride: 12, tokenStride: 5),
        TensorLayout(heads: 2, tokens: 3, dim: 4, headStride: 12, tokenStride: -4),
        TensorLayout(heads: -2, tokens: 3, dim: 4, headStride: 12, tokenStride: 4),
        TensorLayout(heads: 2, tokens: 3, dim: 4, headStride: .max, tokenStride: 4),
        TensorLayout(heads: .max, tokens: .max, dim: 4, headStride: 0, tokenStride: 0),
        TensorLayout(heads: 2, tokens: 2, dim: 4, headStride: .max - 2, tokenStride: .max - 2),
        TensorLayout.headsFirst(heads: 2, tokens: .max / 2, dim: 4),
        TensorLayout.tokensFirst(heads: .max / 2, tokens: 2, dim: 4),
    ])
    func refusesWhatDoesNotFit(layout: TensorLayout) {
        #expect(throws: CodecError.self) { try view(48, layout) }
    }

    @Test func refusesOffsetsAndRangesOutside() throws {
        let layout = TensorLayout.headsFirst(heads: 2, tokens: 3, dim: 4)
        #expect(throws: CodecError.self) { try view(48, offset: 1, layout) }
        #expect(throws: CodecError.self) { try view(48, offset: -1, layout) }
        #expect(throws: CodecError.self) { try view(48, offset: .max, layout) }
        let whole = try view(48, layout)
        #expect(throws: CodecError.self) { try whole.tokens(0..<4) }
    }

    /// The other sizes of a tensor without elements are gone along nowhere.
    @Test(arguments: [
        TensorLayout(heads: .max, tokens: 0, dim: 4, headStride: 0, tokenStride: 0),
        TensorLayout(heads: .max, tokens: .max, dim: 0, headStride: .max, tokenStride: .max),
        TensorLayout(heads: 0, tokens: .max, dim: .max, headStride: 1, tokenStride: 1),
    ])
    func emptyTensorsOfAnySize(layout: TensorLayout) throws {
        let empty = try view(0, layout)
        #expect(empty.floats().isEmpty)
        try empty.copy(to: MutableTensorView(bytes: .init(start: nil, count: 0), elementType: .bfloat16, layout: layout))
    }

    @Test(arguments: ElementType.allCases, OwnedTensor.Arrangement.allCases)
    func readsEveryArrangement(elementType: ElementType, arrangement: OwnedTensor.Arrangement) throws {
        var generator = SplitMix64(seed: 1)
        let values = cacheLikeValues(heads: 3, tokens: 5, dim: 7, using: &generator)
        let tensor = OwnedTensor(
            values: values, heads: 3, tokens: 5, dim: 7, elementType: elementType, arrangement: arrangement)
        #expect(try tensor.floats() == values.map { elementType.float(of: elementType.bits(of: $0)) })
    }
}
