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
    let scratch: EncodeScratch

    /// Tokens of the page that the layer holds.
    var held: Range<Int> { input.firstToken..<input.firstToken + input.key.tokens }

    /// The section, and sums over the values that are quantized.
    func encode() -> (section: [UInt8], key: SquareSums, value: SquareSums) {
        var section = SectionBuilder(compressor: scratch.compressor)
        let key = encode(.key, input.key, profile.key, salientPlan: nil, into: &section)
        let value = encode(.value, input.value, profile.value, salientPlan: profile.salientValue, into: &section)
        return (section.build(), key, value)
    }

    private func encode(
        _ tensor: TensorKind, _ view: TensorView, _ plan: TensorPlan?, salientPlan: TensorPlan?,
        into section: inout SectionBuilder
    ) -> SquareSums {
        var sums = SquareSums()
        if let plan {
            if let salientPlan {
                sums += encodeQuantized(tensor, view, plan, classes: TokenClass.base.bit, into: &section)
                sums += encodeQuantized(tensor, view, salientPlan, classes: TokenClass.salient.bit, into: &section)
            } else {
                sums += encodeQuantized(tensor, view, plan, classes: .lossyClasses, into: &section)
            }
        }
        encodeExact(tensor, view, into: &section)
        return sums
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
    func viewTokens(of classBits: UInt8) -> [UInt32] {
        classes.tokens(of: classBits, in: held).map { $0 - UInt32(input.firstToken) }
    }

    // MARK: - Quantized tokens

    private func encodeQuantized(
        _ tensor: TensorKind, _ view: TensorView, _ plan: TensorPlan, classes classBits: UInt8, into section: inout SectionBuilder
    ) -> SquareSums {
        let pageTokens = classes.tokens(of: classBits, in: held)
        guard !pageTokens.isEmpty else { return SquareSums() }
        let viewTokens = pageTokens.map { $0 - UInt32(input.firstToken) }
        let rotary = tensor == .key && plan.unrotates ? rotary : nil
        let rows = HeadRows(heads: view.heads, tokens: pageTokens.count, dim: view.dim, scratch: scratch)
        rows.load(view, tokens: viewTokens)
        if let rotary { rows.rotate(by: rotary, tokens: pageTokens) }
        let flags: PartFlags = rotary == nil ? [] : .unrotated
        let part = PartEncoder(
            tensor: tensor, classes: classBits, plan: plan, options: options, flags: flags, scratch: scratch)
        return part.encode(rows, into: &section)
    }
}

/// The values of some tokens of all heads as floats, `[heads][tokens][dim]`, in a scratch's memory.
struct HeadRows {
    let heads: Int
    let tokens: Int
    let dim: Int
    private let values: UnsafeMutablePointer<Float>

    init(heads: Int, tokens: Int, dim: Int, scratch: EncodeScratch) {
        self.heads = heads
        self.tokens = tokens
        self.dim = dim
        values = scratch.array(.rows, heads * tokens * dim, of: Float.self)
    }

    func load(_ view: TensorView, tokens list: [UInt32]) {
        for head in 0..<heads {
            kv_load_rows(view.kernelHead(head), list, list.count, values + head * tokens * dim)
        }
    }

    /// Undoes the rotary embedding of the given tokens of the page.
    func rotate(by table: RotaryTable, tokens list: [UInt32]) {
        list.withUnsafeBufferPointer { list in
            for head in 0..<heads { table.rotate(values + head * tokens * dim, dim: dim, tokens: list, direction: -1) }
        }
    }

    /// `[tokens][dim]`
    func head(_ head: Int) -> UnsafePointer<Float> { UnsafePointer(values + head * tokens * dim) }
}
