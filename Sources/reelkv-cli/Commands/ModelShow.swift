import ArgumentParser
import KVCodec
import ReelKV
import Rendering

struct ModelShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show a model's geometry and fingerprint.",
        discussion: """
            Example:
              reelkv model show smollm2
            """)

    @OptionGroup var store: StoreOption
    @OptionGroup var output: OutputOption

    @Argument(help: "The model.")
    var name: String

    func run() throws {
        let model = try store.openToLook().model(named: name)
        try output.write(ModelReport(model)) { report in
            "\(name): \(report.summary)\nfingerprint \(report.fingerprint)\n\n" + layerTable(report)
        }
    }

    /// Layers that are alike share a row.
    private func layerTable(_ report: ModelReport) -> String {
        var table = TextTable(
            .left("LAYERS"), .right("KV HEADS"), .right("KEY DIM"), .right("VALUE DIM"), .right("WINDOW"), .left("ROTARY"))
        var first = 0
        while first < report.layers.count {
            let layer = report.layers[first]
            let end = report.layers[first...].firstIndex { $0 != layer } ?? report.layers.count
            table.append(
                end - first == 1 ? "\(first)" : "\(first)..<\(end)", "\(layer.kvHeads)", "\(layer.keyDim)", "\(layer.valueDim)",
                layer.slidingWindow.map { Format.count($0) } ?? "-", layer.rotary)
            first = end
        }
        return table.text()
    }
}
