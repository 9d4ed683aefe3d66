import CKVKernels

/// Encodes one layer of a page into its section.
struct LayerEncoder {
    let profile: Profile
    let options: EncoderOptions
    let input: LayerInput
    /// The classes of all tokens of the page.
    let classes: TokenClasses
    /// The angles of all tokens of the page; nil when keys are quantized as they are.
    let rotary: RotaryTable?

    /// Tokens of the page that the layer holds.
    var held: Range<Int> { input.firstToken..<input.firstToken + input.key.tokens }

    func encode(compressor: Compressor) -> [UInt8] {
        var section = SectionBuilder(compressor: compressor)
        encode(.key, input.key, profile.key, salientPlan: nil, into: &section)
        encode(.value, input.value, profile.value, salientPlan: profile.salientValue, into: &section)
        return section.build()
    }

    private func encode(
        _ tensor: TensorKind, _ view: TensorView, _ plan: TensorPlan?, salientPlan: TensorPlan?,
        into section: inout SectionBuilder
    ) {
        if let plan {
            if let salientPlan {
                encodeQuantized(tensor, view, plan, classes: TokenClass.base.bit, into: &section)
                encodeQuantized(tensor, view, salientPlan, classes: TokenClass.salient.bit, into: &section)
            } else {
                encodeQuantized(tensor, view, plan, classes: .lossyClasses, into: &section)
            }
        }
        encodeExact(tensor, view, into: &section)
    }

    // MARK: - Exact tokens

    private func encodeExact(_ tensor: TensorKind, _ view: TensorView, into section: inout SectionBuilder) {
        let tokens = viewTokens(of: TokenClass.exact.bit)
        guard !tokens.isEmpty else { return }
        let planeCount = view.elementType.byteCount
        let headBytes = view.dim * tokens.count
        var planes = [UInt8](repeating: 0, count: planeCount * view.heads * headBytes)
        var maxima = [UInt8](repeating: 0, count: view.heads * view.dim)
        planes.withUnsafeMutableBufferPointer { planes in
            maxima.withUnsafeMutableBufferPointer { maxima in
                for head in 0..<view.heads {
                    let pointers = (0..<planeCount).map { plane in
                        planes.baseAddress.map { $0 + (plane * view.heads + head) * headBytes }
                    }
                    kv_exact_split(
                        view.kernelHead(head), tokens, tokens.count, pointers, maxima.baseAddress.map { $0 + head * view.dim })
                }
            }
        }
        section.beginPart(
            PartRecord(
                tensor: tensor.rawValue, tokenClasses: TokenClass.exact.bit, scheme: Scheme.exact.rawValue, codeBits: 0, flags: 0,
                channelSet: ChannelSet.all.rawValue, meanShift: 0, streamCount: 0, groupSize: 0, channelCount: UInt16(view.dim)))
        section.addStream(.exponentMaxima, maxima)
        planes.withUnsafeBytes { planes in
            let size = view.heads * headBytes
            for plane in 0..<planeCount {
                section.addStream(.exactPlane, plane: plane, .init(rebasing: planes[plane * size..<(plane + 1) * size]))
            }
        }
    }

    /// The held tokens of some classes, counted from the first held.
    private func viewTokens(of classBits: UInt8) -> [UInt32] {
        classes.tokens(of: classBits, in: held).map { $0 - UInt32(input.firstToken) }
    }

    // MARK: - Quantized tokens

    private func encodeQuantized(
        _ tensor: TensorKind, _ view: TensorView, _ plan: TensorPlan, classes classBits: UInt8, into section: inout SectionBuilder
    ) {
        let pageTokens = classes.tokens(of: classBits, in: held)
        guard !pageTokens.isEmpty else { return }
        let viewTokens = pageTokens.map { $0 - UInt32(input.firstToken) }
        let rotary = tensor == .key && plan.unrotates ? rotary : nil
        var rows = HeadRows(heads: view.heads, tokens: pageTokens.count, dim: view.dim)
        rows.load(view, tokens: viewTokens)
        if let rotary { rows.rotate(by: rotary, tokens: pageTokens) }
        let flags: PartFlags = rotary == nil ? [] : .unrotated
        let part = PartEncoder(tensor: tensor, classes: classBits, plan: plan, options: options, flags: flags)
        part.encode(rows, into: &section)
    }
}

/// The values of some tokens of all heads as floats: `[heads][tokens][dim]`.
struct HeadRows {
    let heads: Int
    let tokens: Int
    let dim: Int
    private(set) var values: [Float]

    init(heads: Int, tokens: Int, dim: Int) {
        self.heads = heads
        self.tokens = tokens
        self.dim = dim
        values = Array(repeating: 0, count: heads * tokens * dim)
    }

    mutating func load(_ view: TensorView, tokens list: [UInt32]) {
        forEachHead { head, rows in kv_load_rows(view.kernelHead(head), list, list.count, rows) }
    }

    /// Undoes the rotary embedding of the given tokens of the page.
    mutating func rotate(by table: RotaryTable, tokens list: [UInt32]) {
        let dim = dim
        list.withUnsafeBufferPointer { list in
            forEachHead { _, rows in table.rotate(rows, dim: dim, tokens: list, direction: -1) }
        }
    }

    mutating func forEachHead(_ body: (Int, UnsafeMutablePointer<Float>) -> Void) {
        let size = tokens * dim
        let heads = heads
        values.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            for head in 0..<heads { body(head, base + head * size) }
        }
    }

    func withHead<R>(_ head: Int, _ body: (UnsafePointer<Float>) -> R) -> R {
        values.withUnsafeBufferPointer { buffer in
            body(buffer.baseAddress.unsafelyUnwrapped + head * tokens * dim)
        }
    }
}
