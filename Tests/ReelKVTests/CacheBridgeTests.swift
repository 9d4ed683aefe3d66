import KVCacheBridge
import KVCodec
import ReelKV
import Testing

/// An array like an engine's: reference-counted memory, and slices of larger arrays that are not contiguous.
private struct FakeArray: CacheArray {
    var bytes: [UInt8]
    var cacheShape: [Int]
    var strides: [Int]
    var offset = 0
    var cacheElementType: ElementType?

    func withCacheMemory<R>(_ body: (UnsafeRawBufferPointer, [Int]) throws -> R) throws -> R {
        try bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[offset...]), strides) }
    }

    static func makeCacheArray(
        shape: [Int], elementType: ElementType, bytes: UnsafeRawBufferPointer
    ) -> FakeArray {
        FakeArray(
            bytes: Array(bytes), cacheShape: shape, strides: [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1],
            cacheElementType: elementType)
    }

    /// The tensor's rows `range` as `[heads, tokens, dim]` bytes.
    func rows(_ range: Range<Int>) -> [UInt8] {
        let size = cacheElementType?.byteCount ?? 1
        return (0..<cacheShape[1]).flatMap { head in
            range.flatMap { row in
                let start = offset + (head * strides[1] + row * strides[2]) * size
                return bytes[start..<start + cacheShape[3] * size]
            }
        }
    }
}

/// A cache as mlx-lm's `RotatingKVCache` is: several tokens at once are put behind those there are, in order, single ones overwrite
/// the oldest.
private struct RotatingRows {
    let window: Int
    /// The token in each row.
    var rows: [Int] = []
    var offset = 0
    var next = 0

    mutating func append(_ tokens: Range<Int>) {
        if tokens.count == 1 {
            if rows.count > window { rows.removeFirst(rows.count - window); next = window }
            if rows.count < window {
                rows.append(tokens.lowerBound); next = rows.count - 1
            } else {
                if next == window { next = 0 }
                rows[next] = tokens.lowerBound
            }
            next += 1
        } else {
            rows = Array(rows[next...] + rows[..<next])
            rows.removeFirst(max(0, rows.count - window + 1))
            rows += tokens
            next = rows.count
        }
        offset += tokens.count
    }

    var metaState: [String] { ["0", String(window), "256", String(offset), String(next)] }
}

@Suite("Caches of Swift engines")
struct CacheBridgeTests {
    private let folder = TemporaryFolder()
    private static let window = 24
    private let full = ModelSpec.small(layers: 6)
    private let mixed = ModelSpec.small(layers: 3, slidingWindows: [nil, window, nil])

    private static let capacity = 32

    /// One layer's keys and values as an engine's arrays, whose rows hold the tokens `rows`; in memory that has room for more.
    private func arrays(_ cache: SyntheticCache, layer: Int, rows: [Int]) throws -> [FakeArray] {
        let layers = try cache.layers(0..<cache.tokens.count)
        return try [layers[layer].key, layers[layer].value].map { view in
            let room = rows.count + Self.capacity
            let layout = TensorLayout.headsFirst(heads: view.heads, tokens: room, dim: view.dim)
            var bytes = [UInt8](repeating: 0xEE, count: layout.elementCount * view.elementType.byteCount)
            try bytes.withUnsafeMutableBytes { memory in
                let target = try MutableTensorView(bytes: memory, elementType: view.elementType, layout: layout)
                for (row, token) in rows.enumerated() {
                    try view.tokens(token..<token + 1).copy(to: try target.tokens(row..<row + 1))
                }
            }
            return FakeArray(
                bytes: bytes, cacheShape: [1, view.heads, rows.count, view.dim],
                strides: [layout.elementCount, layout.headStride, layout.tokenStride, 1], cacheElementType: view.elementType)
        }
    }

    private func states(_ cache: SyntheticCache, count: Int) throws -> [CacheState<FakeArray>] {
        try cache.model.layers.indices.map {
            CacheState(state: try arrays(cache, layer: $0, rows: Array(0..<count)))
        }
    }

    /// Each layer's keys, then its values.
    private func bytes(_ state: CacheState<FakeArray>, rows: Range<Int>) -> [UInt8] { state.state.flatMap { $0.rows(rows) } }

    @Test("Caches come back bit for bit, and a turn stores only what is new", arguments: [1, 63, 64, 65, 200])
    func grows(first: Int) throws {
        let store = try makeStore(in: folder, full)
        let cache = SyntheticCache(full, .text(230, seed: UInt64(first)))
        for end in [first, 230] {
            let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
            #expect(writer.tokenCount == (end == 230 ? first : 0))
            try writer.append(cache.tokens[writer.tokenCount..<end], from: try states(cache, count: end))
            try writer.finish()
        }
        let match = try store.longestPrefix(of: cache.tokens, model: "small")
        #expect(match.tokenCount == 230 && match.isExact)
        for count in [230, 229, 1] {
            let restored = try store.cacheStates(of: match, as: FakeArray.self, tokens: count)
            #expect(restored.count == full.layers.count)
            for (layer, state) in restored.enumerated() {
                #expect(state.metaState == [""])
                #expect(state.state.map(\.cacheShape) == Array(repeating: [1, 2, count, 32], count: 2))
                #expect(bytes(state, rows: 0..<count) == cache.bytes(layer: layer, 0..<count))
            }
        }
        #expect(try store.cacheStates(of: match, as: FakeArray.self, tokens: 0).allSatisfy(\.state.isEmpty))
        #expect(throws: StoreError.self) { try store.cacheStates(of: match, as: FakeArray.self, tokens: 231) }
    }

    @Test("Rotating caches are stored in order and come back so that they go on", arguments: 0..<12)
    func rotates(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let store = try makeStore(in: folder, mixed)
        let cache = SyntheticCache(mixed, .text(200, seed: UInt64(seed)))
        var rotating = RotatingRows(window: Self.window)
        while rotating.offset < 190 {
            // A turn: a prompt at once, then an answer token by token.
            let prompt = Int.random(in: 1...40, using: &random)
            let answer = Int.random(in: 0...60, using: &random)
            let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
            let end = min(200, writer.tokenCount + prompt + answer)
            rotating.append(writer.tokenCount..<min(end, writer.tokenCount + prompt))
            while rotating.offset < end { rotating.append(rotating.offset..<rotating.offset + 1) }
            var caches = try states(cache, count: end)
            caches[1] = CacheState(
                state: try arrays(cache, layer: 1, rows: rotating.rows), metaState: rotating.metaState)
            try writer.append(cache.tokens[writer.tokenCount..<end], from: caches)
            try writer.finish()

            let restored = try store.cacheStates(
                of: try store.longestPrefix(of: cache.tokens[0..<end], model: "small"), as: FakeArray.self)
            #expect(bytes(restored[0], rows: 0..<end) == cache.bytes(layer: 0, 0..<end))
            #expect(bytes(restored[2], rows: 0..<end) == cache.bytes(layer: 2, 0..<end))
            let rows = min(end, Self.window)
            #expect(restored[1].metaState == ["0", "\(Self.window)", "256", "\(end)", "\(rows)"])
            #expect(restored[1].state[0].cacheShape[2] == rows)
            // What the next token attends to: all but the oldest row of a full window.
            let kept = (rows == Self.window ? 1 : 0)..<rows
            #expect(bytes(restored[1], rows: kept) == cache.bytes(layer: 1, end - kept.count..<end))
        }
    }

    @Test("What is not the model's cache of these tokens is refused, and the writer goes on")
    func refuses() throws {
        let store = try makeStore(in: folder, mixed)
        let cache = SyntheticCache(mixed, .text(60, seed: 1))
        let writer = try store.writer(for: .session("s"), model: "small", profile: .exact)
        let good = try states(cache, count: 60)

        func expectRefused(_ part: String, tokens: Int = 60, _ change: (inout [CacheState<FakeArray>]) throws -> Void) throws {
            var caches = good
            try change(&caches)
            let error = #expect(throws: StoreError.self) { try writer.append(cache.tokens[0..<tokens], from: caches) }
            #expect(error?.code == .modelMismatch)
            #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
            #expect(writer.tokenCount == 0)
        }

        try expectRefused("3 layers, not 2") { $0.removeLast() }
        try expectRefused("seen 60 tokens, but the sequence has 59", tokens: 59) { _ in }
        try expectRefused("not of keys and values") { $0[2].state += $0[2].state + $0[2].state }
        try expectRefused("not of keys and values") { $0[0].state = [] }
        try expectRefused("another element type") { $0[0].state[1].cacheElementType = nil }
        try expectRefused("BF16") { $0[0].state[0].cacheElementType = .float16 }
        try expectRefused("[2, 2, 60, 32]") { $0[0].state[0].cacheShape[0] = 2 }
        try expectRefused("59 of values") { $0[0].state[1].cacheShape[2] = 59 }
        // A rotating cache where the model attends to all tokens, one that keeps its first tokens, and one smaller than the window.
        let newest = Array(60 - Self.window..<60)
        try expectRefused("24 of 60 are left") {
            $0[0] = CacheState(state: try arrays(cache, layer: 0, rows: newest), metaState: ["0", "24", "256", "60", "24"])
        }
        try expectRefused("keeps its first 4 tokens") {
            $0[1] = CacheState(state: try arrays(cache, layer: 1, rows: newest), metaState: ["4", "24", "256", "60", "24"])
        }
        try expectRefused("10 of 60 are left") {
            $0[1] = CacheState(
                state: try arrays(cache, layer: 1, rows: Array(50..<60)), metaState: ["0", "10", "256", "60", "10"])
        }
        try writer.append(cache.tokens, from: good)
        try writer.finish()
        #expect(try store.prefix(of: .session("s")).tokenCount == 60)
    }
}
