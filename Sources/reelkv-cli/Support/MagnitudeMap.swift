import KVCodec
import ReelKV
import Rendering

/// The magnitudes of one head's keys or values, with what the pages say of channels and tokens.
struct MagnitudeMap {
    /// What the map is of, for programs.
    struct Report: Encodable {
        var layer: Int
        var head: Int
        var tensor: String
        var firstToken: Int
        var tokens: Int
        var channels: Int
        var anomalousChannels: [Int]
        var protectedTokens: [Int]
        var exactTokens: [Int]
        /// Mean magnitude of each channel.
        var channelMeans: [Float]

        enum CodingKeys: String, CodingKey {
            case layer, head, tensor, tokens, channels
            case firstToken = "first_token"
            case anomalousChannels = "anomalous_channels"
            case protectedTokens = "protected_tokens"
            case exactTokens = "exact_tokens"
            case channelMeans = "channel_means"
        }
    }

    /// Tokens that are drawn where none are named: more than these would be pooled away in any picture.
    static let tokensMax = 4096

    private(set) var heatMap: HeatMap
    private(set) var report: Report

    init(
        _ store: Store, _ prefix: StoredPrefix, layer: Int, tensor: TensorKind, head: Int, tokens: Range<Int>?, title: String
    ) throws {
        guard prefix.model.layers.indices.contains(layer) else {
            throw Failure("model '\(prefix.model.name)' has the layers 0..<\(prefix.model.layers.count), no layer \(layer)")
        }
        let geometry = prefix.model.layers[layer]
        guard (0..<geometry.keyValueHeads).contains(head) else {
            throw Failure("layer \(layer) has the KV heads 0..<\(geometry.keyValueHeads), no head \(head)")
        }
        let tokens = tokens ?? 0..<min(prefix.tokenCount, Self.tokensMax)
        guard !tokens.isEmpty, tokens.upperBound <= prefix.tokenCount else {
            throw Failure("only the first \(prefix.tokenCount) tokens of \(title) can be read: choose --tokens among them")
        }
        let dim = tensor == .key ? geometry.keyDim : geometry.valueDim
        let values = try Self.values(store, prefix, layer: layer, tensor: tensor, head: head, tokens: tokens)
        let marks = try PageMarks(store, prefix, layer: layer, head: head, tokens: tokens)
        var magnitudes = [Float](repeating: 0, count: dim * tokens.count)
        for token in 0..<tokens.count {
            for channel in 0..<dim { magnitudes[channel * tokens.count + token] = abs(values[token * dim + channel]) }
        }
        let name = tensor == .key ? "key" : "value"
        heatMap = HeatMap(rowCount: dim, columnCount: tokens.count, magnitudes: magnitudes)
        heatMap.title = "\(title): magnitude of the \(name)s of layer \(layer), KV head \(head)"
        heatMap.rowName = "channel"
        heatMap.columnName = "token"
        heatMap.valueName = tensor == .key ? "|K|" : "|V|"
        heatMap.firstColumn = tokens.lowerBound
        if tensor == .key { heatMap.rowMarks = HeatMap.Marks("anomalous channel", marks.anomalousChannels) }
        heatMap.columnMarks = HeatMap.Marks(
            "protected or exact token", (marks.salient + marks.exact).map { $0 - tokens.lowerBound })
        report = Report(
            layer: layer, head: head, tensor: name, firstToken: tokens.lowerBound, tokens: tokens.count, channels: dim,
            anomalousChannels: tensor == .key ? marks.anomalousChannels : [], protectedTokens: marks.salient,
            exactTokens: marks.exact,
            channelMeans: (0..<dim).map { channel in
                magnitudes[channel * tokens.count..<(channel + 1) * tokens.count].reduce(0, +) / Float(tokens.count)
            })
    }

    /// One head's `[tokens, dim]`.
    private static func values(
        _ store: Store, _ prefix: StoredPrefix, layer: Int, tensor: TensorKind, head: Int, tokens: Range<Int>
    ) throws -> ArraySlice<Float> {
        let geometry = prefix.model.layers[layer]
        let dim = tensor == .key ? geometry.keyDim : geometry.valueDim
        let layout = TensorLayout.headsFirst(heads: geometry.keyValueHeads, tokens: tokens.count, dim: dim)
        var values = [Float](repeating: 0, count: layout.elementCount)
        try values.withUnsafeMutableBytes { bytes in
            let view = try MutableTensorView(bytes: bytes, elementType: .float32, layout: layout)
            try store.restore(prefix, layers: layer..<layer + 1, tokens: tokens) { _ in
                LayerDestination(key: tensor == .key ? view : nil, value: tensor == .value ? view : nil)
            }
        }
        let whole = values[head * tokens.count * dim..<(head + 1) * tokens.count * dim]
        return ArraySlice(Array(whole))
    }
}

/// What pages say of their channels and tokens.
private struct PageMarks {
    /// Channels that at least half of the pages with mixed precision treat as anomalous.
    private(set) var anomalousChannels: [Int] = []
    /// Tokens that got more bits.
    private(set) var salient: [Int] = []
    /// Tokens kept bit for bit among lossy ones.
    private(set) var exact: [Int] = []

    init(_ store: Store, _ prefix: StoredPrefix, layer: Int, head: Int, tokens: Range<Int>) throws {
        var counts: [Int: Int] = [:]
        var mixedPages = 0
        for page in try store.pages(of: prefix) where !page.tokens.clamped(to: tokens).isEmpty {
            try store.withImage(of: page) { image in
                let classes = image.profile?.isExact == true ? [] : image.tokenClasses
                for (offset, tokenClass) in classes.enumerated() where tokens.contains(page.tokens.lowerBound + offset) {
                    switch tokenClass {
                    case .base: break
                    case .salient: salient.append(page.tokens.lowerBound + offset)
                    case .exact: exact.append(page.tokens.lowerBound + offset)
                    }
                }
                guard image.layers.indices.contains(layer), image.layers[layer] != nil else { return }
                let anomalous = try image.describe(layer: layer).anomalousChannels
                guard anomalous.indices.contains(head) else { return }
                mixedPages += 1
                for channel in anomalous[head] { counts[channel, default: 0] += 1 }
            }
        }
        anomalousChannels = counts.filter { 2 * $0.value >= mixedPages }.keys.sorted()
    }
}
