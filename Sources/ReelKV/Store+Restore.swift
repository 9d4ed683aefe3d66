public import KVCodec
import LMDB
import Locking

/// Where one layer's restored tensors go: `[heads, tokens, dim]` views of the caller's memory, of any strides and any element
/// type; nil for a tensor that is not wanted.
public struct LayerDestination {
    public var key: MutableTensorView?
    public var value: MutableTensorView?

    public init(key: MutableTensorView?, value: MutableTensorView?) {
        self.key = key
        self.value = value
    }
}

/// A layer that has been restored.
public struct RestoredLayer: Hashable, Sendable {
    public var layer: Int
    /// The first token of the range asked for that the layer holds: 0, but for sliding-window layers that have dropped the tokens
    /// before it. What lies before is left as it was.
    public var firstToken: Int
}

extension Store {
    /// Reads tensors of a stored prefix into the caller's memory, layer by layer on all cores.
    ///
    /// - Parameters:
    ///   - layers: which layers; nil for all.
    ///   - tokens: which tokens of the prefix; nil for all.
    ///   - threads: how many threads decode; nil for one per core.
    ///   - destination: called once per layer, before anything is read, on the calling thread. The views must have as many tokens as
    ///     are asked for and must stay valid until this returns.
    ///   - onLayer: called when a layer is complete, in order, never at the same time twice, on one of the decoding threads. So an
    ///     engine can start on layer 0 while layer 1 decodes. An error thrown from it ends the restore.
    /// What is restored is what the prefix told of: a page that was moved since is read where it lies now. Once `destination` has been
    /// called nothing that happens to the store can take a page away. While it runs, a store that is open for writing holds a
    /// lease on the prefix.
    ///
    /// - Throws: `StoreError.pageUnavailable` when a page was deleted, evicted or re-encoded meanwhile, or fails its checksum; a damaged
    ///   one is then quarantined, and the caller matches again or computes the tokens. Nothing of a damaged page reaches the
    ///   caller's memory as valid.
    public func restore(
        _ prefix: StoredPrefix, layers: Range<Int>? = nil, tokens: Range<Int>? = nil, threads: Int? = nil,
        into destination: (_ layer: Int) throws -> LayerDestination, onLayer: ((RestoredLayer) throws -> Void)? = nil
    ) throws {
        let layers = layers ?? 0..<prefix.model.layers.count
        let tokens = tokens ?? 0..<prefix.tokenCount
        try checkRange(layers, within: prefix.model.layers.count, what: "layers")
        try checkRange(tokens, within: prefix.tokenCount, what: "tokens")
        let segments = prefix.segments.filter { !$0.range.clamped(to: tokens).isEmpty }
        // Volumes whose files are gone can only be closed when their pages are no longer held.
        defer { volumes.closeRemoved() }
        let lease = leaseIfPossible(prefix)
        defer { withExtendedLifetime(lease) {} }
        let pages = try hold(segments)
        let destinations = try layers.map { layer in
            let destination = try destination(layer)
            try destination.check(layer: layer, geometry: prefix.model.layers[layer], tokens: tokens.count)
            return destination
        }
        try decode(pages, layers: layers, tokens: tokens, threads: threads, into: destinations, onLayer: onLayer)
    }

    /// Decodes pages, which are consecutive and hold `tokens`, on several threads.
    private func decode(
        _ pages: [HeldPage], layers: Range<Int>, tokens: Range<Int>, threads: Int?, into destinations: [LayerDestination],
        onLayer: ((RestoredLayer) throws -> Void)?
    ) throws {
        if pages.isEmpty {
            for layer in layers { try onLayer?(RestoredLayer(layer: layer, firstToken: 0)) }
            return
        }
        let threads = threads ?? Platform.processorCount
        let reading = BackgroundWork()
        defer { try? reading.wait() }
        try readAhead(pages, layers: layers, threads: threads, reading)
        let order = LayerOrder(layers: layers, parts: pages.count)
        try ScratchPool.withScratches(max(1, threads)) { scratches in
            try Parallel.forEach(layers.count * pages.count, threads: threads) { item, worker in
                let (layerIndex, pageIndex) = item.quotientAndRemainder(dividingBy: pages.count)
                let part = pages[pageIndex].segment.range.clamped(to: tokens)
                let first = try decode(
                    pages[pageIndex], layer: layers.lowerBound + layerIndex, tokens: part,
                    into: try destinations[layerIndex].tokens(
                        part.lowerBound - tokens.lowerBound..<part.upperBound - tokens.lowerBound),
                    scratch: scratches[worker])
                try order.finish(
                    layerIndex, firstToken: first == part.lowerBound ? 0 : first - tokens.lowerBound, report: onLayer)
            }
        }
    }

    /// Layers that are asked for together: enough for a disk to read in one go, few enough that the first are not behind the others.
    private static var layersAhead: Int { 4 }

    /// Has the disk begin to read what is not in memory, in the order in which it will be decoded.
    private func readAhead(_ pages: [HeldPage], layers: Range<Int>, threads: Int, _ reading: BackgroundWork) throws {
        let isInMemory = { (page: HeldPage, layers: Range<Int>) in
            try self.withImage(of: page, readsAhead: false) { Environment.isInMemory($0.bytes(ofLayers: layers)) }
        }
        let ask = { (page: HeldPage, first: Int) in
            let some = first..<min(first + Self.layersAhead, layers.upperBound)
            try self.withImage(of: page, readsAhead: false) { Environment.adviseWillNeed($0.bytes(ofLayers: some)) }
        }
        var begun = layers.lowerBound
        // Mostly all pages are in memory, or none.
        if try !isInMemory(pages[0], layers) {
            for page in pages { try? page.volume.readAheadOfPrologue(page.segment.encoding.pageId) }
            try Parallel.forEach(pages.count, threads: threads) { page, _ in try ask(pages[page], begun) }
            begun += Self.layersAhead
        }
        // Asking takes time too: for what is needed later it is done while the first layers are decoded.
        try reading.begin {
            let cold = try pages.filter { try !isInMemory($0, layers) }
            for first in stride(from: begun, to: layers.upperBound, by: Self.layersAhead) {
                for page in cold { try ask(page, first) }
            }
        }
    }

    /// Reads `tokens` (counted from the page's first) of all layers of a segment into staging memory.
    func restore(_ segment: PageSegment, tokens: Range<Int>, into staging: PageStaging) throws {
        let page = try hold(segment)
        // Asks the disk for all of it: every layer is read.
        try withImage(of: page) { _ in }
        let scratch = DecodeScratch()
        let range = segment.pageFirstToken + tokens.lowerBound..<segment.pageFirstToken + tokens.upperBound
        for layer in 0..<staging.layerCount {
            let first = try decode(
                page, layer: layer, tokens: range, into: try staging.destination(layer, tokens: tokens), scratch: scratch)
            if first > range.lowerBound { staging.noteRestored(layer, from: first - segment.pageFirstToken) }
        }
    }

    private func checkRange(_ range: Range<Int>, within count: Int, what: String) throws {
        guard range.lowerBound >= 0, range.upperBound <= count else {
            throw StoreError(.invalidArgument, "\(what) \(range) are not within the \(count) that are stored")
        }
    }

    /// Decodes the part of a page that covers `tokens` (indices in the sequence) of one layer.
    ///
    /// - Returns: the first of `tokens` that the layer holds.
    private func decode(
        _ page: HeldPage, layer: Int, tokens: Range<Int>, into destination: LayerDestination, scratch: DecodeScratch
    ) throws -> Int {
        let segment = page.segment
        let nodeStart = segment.pageFirstToken + segment.nodeTokens.lowerBound
        return try withImage(of: page, readsAhead: false) { stored in
            let image = stored.image
            // a sliding-window layer may hold none of the page, or only its last tokens
            let held = image.layers.indices.contains(layer) ? image.layers[layer]?.tokens.lowerBound : nil
            let first = held.map { min(max(tokens.lowerBound, nodeStart + $0), tokens.upperBound) } ?? tokens.upperBound
            guard first < tokens.upperBound else { return first }
            try Environment.bringIn(stored.bytes(ofLayers: layer..<layer + 1))
            let part = try destination.tokens(first - tokens.lowerBound..<tokens.count)
            try stored.decode(
                layer: layer, tokens: first - nodeStart..<tokens.upperBound - nodeStart, key: part.key, value: part.value,
                scratch: scratch)
            return first
        }
    }
}

extension LayerDestination {
    fileprivate func tokens(_ range: Range<Int>) throws -> LayerDestination {
        LayerDestination(key: try key?.tokens(range), value: try value?.tokens(range))
    }

    /// - Throws: `StoreError.modelMismatch` for memory of another shape than the layer's.
    package func check(layer: Int, geometry: LayerGeometry, tokens: Int) throws {
        for (what, view, dim) in [("key", key, geometry.keyDim), ("value", value, geometry.valueDim)] {
            guard let view else { continue }
            guard view.heads == geometry.keyValueHeads, view.tokens == tokens, view.dim == dim else {
                throw StoreError(
                    .modelMismatch,
                    "layer \(layer): the \(what) memory is [\(view.heads), \(view.tokens), \(view.dim)], it must be [\(geometry.keyValueHeads), \(tokens), \(dim)]"
                )
            }
        }
    }
}

/// Reports layers in order, each when all its parts are decoded.
private final class LayerOrder: Sendable {
    private struct State {
        var remaining: [Int]
        var firstTokens: [Int]
        var next = 0
    }

    private let layers: Range<Int>
    private let state: Mutex<State>

    init(layers: Range<Int>, parts: Int) {
        self.layers = layers
        state = Mutex(
            State(
                remaining: Array(repeating: parts, count: layers.count),
                firstTokens: Array(repeating: 0, count: layers.count)))
    }

    /// The report runs under the lock: that is what keeps it in order and alone.
    func finish(_ layer: Int, firstToken: Int, report: ((RestoredLayer) throws -> Void)?) throws {
        try state.withLock { state in
            state.remaining[layer] -= 1
            state.firstTokens[layer] = max(state.firstTokens[layer], firstToken)
            while state.next < state.remaining.count, state.remaining[state.next] == 0 {
                let done = state.next
                state.next += 1
                try report?(RestoredLayer(layer: layers.lowerBound + done, firstToken: state.firstTokens[done]))
            }
        }
    }
}
