import CKVKernels

extension LayerEncoder {
    /// Encodes the layer and measures its error; nil when a value that would be quantized is unsafe.
    func encodeMeasured(elementType: ElementType, positions: PagePositions) throws(CodecError) -> EncodedLayer? {
        guard let (section, key, value) = encode() else { return nil }
        guard !profile.isExact else { return EncodedLayer(section: section, error: LayerError(key: 0, value: 0)) }
        let decoded = DecodedLayer(section: section, elementType: elementType, positions: positions)
        return EncodedLayer(
            section: section,
            error: LayerError(
                key: try error(.key, input.key, key, decoded), value: try error(.value, input.value, value, decoded)))
    }

    /// What it takes to decode the layer.
    private struct DecodedLayer {
        var section: [UInt8]
        var elementType: ElementType
        var positions: PagePositions
    }

    /// Below this NMSE the rounding of rotating and transforming counts, in a measurement that leaves them out.
    private static var decodedErrorMax: Double { 2e-3 }

    /// NMSE of a tensor. Large ones are what quantizing told; the others are measured by decoding the section.
    private func error(
        _ tensor: TensorKind, _ view: TensorView, _ quantized: SquareSums, _ layer: DecodedLayer
    ) throws(CodecError) -> Float {
        var sums = quantized
        sums.energy += exactEnergy(view)
        let error = sums.error / sums.energy
        // not so of NaN: of zeros, or of sums too large for a float
        if error > Self.decodedErrorMax, error < .infinity { return min(Float(error), .greatestFiniteMagnitude) }
        return try decodedError(tensor, view, layer)
    }

    /// The sum of squares of the exact tokens' finite values.
    private func exactEnergy(_ view: TensorView) -> Double {
        let tokens = viewTokens(of: TokenClass.exact.bit)
        guard !tokens.isEmpty else { return 0 }
        let rows = HeadRows(heads: view.heads, tokens: tokens.count, dim: view.dim, scratch: scratch)
        rows.load(view, tokens: tokens)
        return SquareSums.between(rows) { rows.head($0) }.energy
    }

    private func decodedError(_ tensor: TensorKind, _ view: TensorView, _ layer: DecodedLayer) throws(CodecError) -> Float {
        var decoded = [Float](repeating: 0, count: view.heads * view.tokens * view.dim)
        var failure: CodecError?
        layer.section.withUnsafeBytes { section in
            decoded.withUnsafeMutableBytes { bytes in
                do throws(CodecError) {
                    let output = try MutableTensorView(
                        bytes: bytes, elementType: .float32,
                        layout: .headsFirst(heads: view.heads, tokens: view.tokens, dim: view.dim))
                    let decoder = LayerDecoder(
                        section: try SectionView(
                            parsing: section, geometry: input.geometry, elementType: layer.elementType,
                            present: classes.present(in: held), scratch: scratch.decoding),
                        geometry: input.geometry, elementType: layer.elementType, classes: classes, positions: layer.positions,
                        held: held)
                    try decoder.decode(tensor, tokens: held, to: output, scratch: scratch.decoding)
                } catch {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
        let rows = HeadRows(heads: view.heads, tokens: view.tokens, dim: view.dim, scratch: scratch)
        rows.load(view, tokens: (0..<UInt32(view.tokens)).map { $0 })
        let sums = decoded.withUnsafeBufferPointer { decoded in
            SquareSums.between(rows) { decoded.baseAddress.unsafelyUnwrapped + $0 * view.tokens * view.dim }
        }
        let error = sums.error == 0 ? 0 : min(Float(sums.error / sums.energy), .greatestFiniteMagnitude)
        return error == 0 && !Self.isIdentical(view, decoded) ? Self.leastError : error
    }

    /// What is said of a tensor that does not come back bit for bit although its error is 0, or too small for a float: 0 is kept for
    /// those that do. Still above 0 as the mean over the most layers.
    private static var leastError: Float { .leastNormalMagnitude }

    /// Whether values that differ by nothing have the same bits too: 0 and -0 do not.
    private static func isIdentical(_ view: TensorView, _ decoded: [Float]) -> Bool {
        let finite = view.floats().enumerated().lazy.filter { $0.element.isFinite }
        return finite.allSatisfy { $0.element.bitPattern == decoded[$0.offset].bitPattern }
    }
}

/// Sums over some values, of which an NMSE is the quotient.
struct SquareSums {
    /// Of the squares of what is lost.
    var error = 0.0
    /// Of the values' squares.
    var energy = 0.0

    static func + (left: SquareSums, right: SquareSums) -> SquareSums {
        SquareSums(error: left.error + right.error, energy: left.energy + right.energy)
    }

    static func += (left: inout SquareSums, right: SquareSums) { left = left + right }

    /// Over the finite values of rows and, head by head, what they are compared with.
    static func between(_ rows: HeadRows, _ decoded: (_ head: Int) -> UnsafePointer<Float>) -> SquareSums {
        var error = [Double](repeating: 0, count: rows.dim)
        var energy = [Double](repeating: 0, count: rows.dim)
        for head in 0..<rows.heads {
            kv_add_errors(rows.head(head), decoded(head), rows.tokens, rows.dim, &error, &energy)
        }
        return SquareSums(error: error.reduce(0, +), energy: energy.reduce(0, +))
    }
}
