import CKVKernels

extension PageEncoder {
    /// Decides what is exact and what is salient, but for tokens with unsafe values. A token has one class in all layers.
    func classify(_ page: PageInput, executor: Executor) -> TokenClasses {
        guard !profile.isExact else { return TokenClasses(repeating: .exact, count: page.tokenCount) }
        var classes = [UInt8](repeating: TokenClass.base.rawValue, count: page.tokenCount)
        if profile.protectsSalientTokens {
            for token in salientTokens(of: page, executor: executor) { classes[token] = TokenClass.salient.rawValue }
        }
        let exactPrefix = max(0, min(page.tokenCount, options.exactPrefix - page.identity.firstToken))
        for token in 0..<exactPrefix { classes[token] = TokenClass.exact.rawValue }
        for token in page.exact { classes[token] = TokenClass.exact.rawValue }
        return TokenClasses(known: classes)
    }

    /// Tokens that no quantizer can take: a value that is not finite, or so large that sums of squares would overflow, in any
    /// layer.
    func unsafeTokens(of page: PageInput, executor: Executor) -> [Bool] {
        let flags = PerLayer<UInt8>(layers: page.layers.count, tokens: page.tokenCount)
        executor(page.layers.count) { index in
            guard let layer = page.layers[index] else { return }
            let own = flags.row(index) + layer.firstToken
            for view in [layer.key, layer.value] {
                for head in 0..<view.heads { kv_flag_unsafe(view.kernelHead(head), view.tokens, own) }
            }
        }
        return (0..<page.tokenCount).map { token in
            (0..<page.layers.count).contains { flags.row($0)[token] != 0 }
        }
    }

    private func salientTokens(of page: PageInput, executor: Executor) -> [Int] {
        guard page.salient.isEmpty else { return page.salient }
        switch options.protection {
        case .listed: return []
        case .random(let fraction, let seed):
            var generator = SplitMix64(seed: seed &+ UInt64(page.identity.firstToken))
            let ranks = (0..<page.tokenCount).map { _ in Double(generator.next()) }
            return Self.highest(ranks, fraction: fraction)
        case .valueNorm(let fraction):
            return Self.highest(valueEnergy(of: page, executor: executor), fraction: fraction)
        }
    }

    /// Indices of the highest ranks, the earlier of equal ones first.
    private static func highest(_ ranks: [Double], fraction: Double) -> [Int] {
        let count = Int((fraction * Double(ranks.count)).rounded())
        let order = ranks.indices.sorted { ranks[$0] == ranks[$1] ? $0 < $1 : ranks[$0] > ranks[$1] }
        return Array(order.prefix(count))
    }

    /// Per token, the squared norm of its values relative to the layer's mean, summed over layers.
    private func valueEnergy(of page: PageInput, executor: Executor) -> [Double] {
        let energy = PerLayer<Double>(layers: page.layers.count, tokens: page.tokenCount)
        executor(page.layers.count) { index in
            guard let layer = page.layers[index] else { return }
            let own = energy.row(index) + layer.firstToken
            for head in 0..<layer.value.heads { kv_add_energy(layer.value.kernelHead(head), layer.value.tokens, own) }
        }
        var sums = [Double](repeating: 0, count: page.tokenCount)
        for index in page.layers.indices {
            let row = UnsafeBufferPointer(start: energy.row(index), count: page.tokenCount)
            let finite = row.lazy.filter(\.isFinite)
            let mean = finite.reduce(0, +) / Double(max(1, page.tokenCount))
            for token in row.indices where row[token].isFinite && mean > 0 { sums[token] += row[token] / mean }
        }
        return sums
    }
}

/// A number per layer and token; each worker writes its own layer's row.
private final class PerLayer<Number: AdditiveArithmetic>: @unchecked Sendable {
    private let values: UnsafeMutableBufferPointer<Number>
    private let tokens: Int

    init(layers: Int, tokens: Int) {
        self.tokens = tokens
        values = .allocate(capacity: layers * tokens)
        values.initialize(repeating: .zero)
    }

    deinit { values.deallocate() }

    func row(_ layer: Int) -> UnsafeMutablePointer<Number> {
        values.baseAddress.unsafelyUnwrapped + layer * tokens
    }
}
