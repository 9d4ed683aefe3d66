import KVCodec
import ReelKV
import Rendering

/// The error of each layer's keys and values, mean over a sequence's pages by their tokens.
struct LayerErrors: Encodable {
    var name: String
    var keyErrors: [Double]
    var valueErrors: [Double]

    enum CodingKeys: String, CodingKey {
        case name
        case keyErrors = "key_errors"
        case valueErrors = "value_errors"
    }

    init(_ store: Store, _ prefix: StoredPrefix, name: SequenceName) throws {
        self.name = name.description
        var sums = Array(repeating: (key: 0.0, value: 0.0, tokens: 0.0), count: prefix.model.layers.count)
        for page in try store.pages(of: prefix) {
            try store.withImage(of: page) { image in
                for (index, layer) in image.layers.enumerated() where index < sums.count {
                    guard let layer else { continue }
                    sums[index].key += Double(layer.error.key) * Double(layer.tokens.count)
                    sums[index].value += Double(layer.error.value) * Double(layer.tokens.count)
                    sums[index].tokens += Double(layer.tokens.count)
                }
            }
        }
        keyErrors = sums.map { $0.tokens > 0 ? $0.key / $0.tokens : 0 }
        valueErrors = sums.map { $0.tokens > 0 ? $0.value / $0.tokens : 0 }
    }

    var plot: LinePlot {
        LinePlot(
            title: "Error of \(name) by layer", xName: "layer", yName: "NMSE",
            series: [Series("keys", keyErrors), Series("values", valueErrors)])
    }
}
