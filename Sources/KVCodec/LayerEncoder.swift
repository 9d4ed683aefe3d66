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

    /// The section, and sums over the values that are quantized; nil when a value among them is unsafe.
    func encode() -> (section: [UInt8], key: SquareSums, value: SquareSums)? {
        var section = SectionBuilder(compressor: scratch.compressor)
        guard let key = encode(.key, input.key, profile.key, salientPlan: nil, into: &section),
            let value = encode(.value, input.value, profile.value, salientPlan: profile.salientValue, into: &section)
        else { return nil }
        return (section.build(), key, value)
    }

    private func encode(
        _ tensor: TensorKind, _ view: TensorView, _ plan: TensorPlan?, salientPlan: TensorPlan?,
        into section: inout SectionBuilder
    ) -> SquareSums? {
        var sums = SquareSums()
        for (plan, classes) in plans(plan, salientPlan) {
            guard let own = encodeQuantized(tensor, view, plan, classes: classes, into: &section) else { return nil }
            sums += own
        }
        encodeExact(tensor, view, into: &section)
        return sums
    }

    /// Which plan is for tokens of which classes.
    private func plans(_ plan: TensorPlan?, _ salientPlan: TensorPlan?) -> [(TensorPlan, UInt8)] {
        guard let plan else { return [] }
        guard let salientPlan else { return [(plan, .lossyClasses)] }
        return [(plan, TokenClass.base.bit), (salientPlan, TokenClass.salient.bit)]
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
    ) -> SquareSums? {
        let tokens = viewTokens(of: classBits)
        guard !tokens.isEmpty else { return SquareSums() }
        let rotary = tensor == .key && plan.unrotates ? rotary : nil
        let rows = HeadRows(heads: view.heads, tokens: tokens.count, dim: view.dim, scratch: scratch)
        let isSafe =
            tensor == .key
            ? rows.loadKeys(view, tokens: tokens, rotary: rotary, firstToken: input.firstToken) : rows.load(view, tokens: tokens)
        guard isSafe else { return nil }
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
    private let ranges: UnsafeMutablePointer<Float>

    init(heads: Int, tokens: Int, dim: Int, scratch: EncodeScratch) {
        self.heads = heads
        self.tokens = tokens
        self.dim = dim
        values = scratch.array(.rows, heads * tokens * dim, of: Float.self)
        ranges = scratch.array(.ranges, heads * dim, of: Float.self)
    }

    /// - Returns: whether quantizers can take all values.
    @discardableResult
    func load(_ view: TensorView, tokens list: [UInt32]) -> Bool {
        var isSafe = true
        for head in 0..<heads {
            isSafe = kv_load_safe(view.kernelHead(head), list, list.count, values + head * tokens * dim) != 0 && isSafe
        }
        return isSafe
    }

    /// Loads keys, with their channels' ranges, and undoes their rotary embedding.
    /// - Parameter firstToken: the token of the page that is the view's first.
    /// - Returns: whether quantizers can take all values.
    func loadKeys(_ view: TensorView, tokens list: [UInt32], rotary: RotaryTable?, firstToken: Int) -> Bool {
        var isSafe = true
        for head in 0..<heads {
            let (own, ownRanges) = (values + head * tokens * dim, ranges + head * dim)
            let result =
                rotary?.load(view.kernelHead(head), tokens: list, firstToken: firstToken, to: own, ranges: ownRanges)
                ?? kv_load_keys(view.kernelHead(head), list, list.count, nil, nil, 0, 0, own, ownRanges)
            isSafe = result != 0 && isSafe
        }
        return isSafe
    }

    /// `[tokens][dim]`
    func head(_ head: Int) -> UnsafePointer<Float> { UnsafePointer(values + head * tokens * dim) }

    /// Maximum minus minimum of each channel of a head's keys.
    func ranges(_ head: Int) -> UnsafePointer<Float> { UnsafePointer(ranges + head * dim) }
}
