import KVCodec
import Testing

/// The decoder against the plain one, on every profile: bit for bit where nothing is rotated or transformed.
@Suite struct ReferenceTests {
    @Test(arguments: Profile.all.filter { !$0.isExact })
    func agreesWithTheReference(profile: Profile) throws {
        for (tokens, dim, rotary) in [
            (70, 20, nil), (64, 16, RotaryParameters(theta: 1e4, dim: 16)),
            (45, 24, RotaryParameters(theta: 1e3, dim: 12, pairing: .interleaved, sections: [1, 2, 3])),
        ] as [(Int, Int, RotaryParameters?)] {
            var page = OwnedPage.random(heads: 2, tokens: tokens, keyDim: dim, valueDim: dim + 3, rotary: rotary, seed: 4)
            page.identity.firstToken = 512
            page.salient = [3, 4, 5, 20, 40]
            page.positions = (0..<3).map { stream in (0..<tokens).map { Int32(500 + $0 * (stream + 1)) } }
            let encoded = try page.encode(profile)
            let decoded = try encoded.decode(layer: 0, as: .float32)
            try compare(encoded, .key, dim: dim, with: try decoded.key.floats(), page: page)
            try compare(encoded, .value, dim: dim + 3, with: try decoded.value.floats(), page: page)
        }
    }

    private func compare(
        _ encoded: EncodedPage, _ tensor: TensorKind, dim: Int, with decoded: [Float], page: OwnedPage
    ) throws {
        let expected = try ReferenceImage(encoded).tensor(tensor, page: page)
        let inexact = try encoded.withImage { image in
            try image.describe(layer: 0).parts.contains {
                $0.tensor == tensor && !$0.flags.isDisjoint(with: [.fourier, .unrotated])
            }
        }
        guard inexact else {
            #expect(decoded == expected)
            return
        }
        let size = expected.map { $0.magnitude }.max() ?? 0
        for (x, y) in zip(decoded, expected) { #expect(abs(x - y) <= size * 0x1p-20) }
    }

    @Test func scaleTableIsTheRoundedPowersOfTwo() {
        for steps in 0...4 {
            let values = GroupQuantizer.scaleValues(anchor: -3, steps: steps)
            for code in 0...255 {
                #expect(values[code] == ReferenceDecoder.scaleValue(code: code, anchor: -3, steps: steps))
            }
        }
    }
}
