import ArgumentParser
import Dispatch
import KVCodec
import KVMetrics
import Rendering
import Reports

/// What each profile stores and what it loses, on captured caches.
struct ProfileBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profiles",
        abstract: "Tabulates every profile on captured caches: bits stored, NMSE, error of the attention output.",
        discussion: """
            Bits count every byte in the store's folder. The attention error is the relative L2 distance between the attention \
            outputs of the file's real queries over the exact and over the restored cache, mean over layers.
            """)

    @Argument(help: "Safetensors files with layers.N.key, .value and .query.", completion: .file(extensions: ["safetensors"]))
    var files: [String]
    @Option(help: "Base of the rotary embedding; taken from the file when not given.") var theta: Double?
    @Option(help: "Only these profiles.") var profile: [String] = []
    @Flag(help: "Show what each choice of the encoder is worth, instead of the profiles.") var ablation = false
    @Flag(help: "Errors of each layer, beside the means.") var perLayer = false
    @Flag(help: "Print JSON.") var json = false

    struct Row: Encodable {
        var file: String
        var name: String
        var bitsPerElement: Double
        var bitsPerElementInImages: Double
        var keyNMSE: Double
        var valueNMSE: Double
        var attentionError: Double?
        var keyNMSEPerLayer: [Double]
        var valueNMSEPerLayer: [Double]
        var attentionErrorPerLayer: [Double]

        enum CodingKeys: String, CodingKey {
            case file, name
            case bitsPerElement = "bits_per_element"
            case bitsPerElementInImages = "bits_per_element_in_images"
            case keyNMSE = "key_nmse"
            case valueNMSE = "value_nmse"
            case attentionError = "attention_error"
            case keyNMSEPerLayer = "key_nmse_per_layer"
            case valueNMSEPerLayer = "value_nmse_per_layer"
            case attentionErrorPerLayer = "attention_error_per_layer"
        }
    }

    func run() throws {
        var all: [Row] = []
        for path in files {
            let fixture = try CacheFixture(path: path, theta: theta)
            let rows = try settings().map { try row($0.name, $0.profile, $0.options, of: fixture) }
            all += rows
            if !json { show(rows, of: fixture) }
        }
        if json { print(try JSONOutput.text(all, pretty: true)) }
    }

    private func row(_ name: String, _ profile: Profile, _ options: EncoderOptions, of fixture: CacheFixture) throws -> Row {
        let report = try fixture.sample.report(profile: profile, options: options) { count, body in
            DispatchQueue.concurrentPerform(iterations: count, execute: body)
        }
        return Row(
            file: fixture.file.path, name: name,
            bitsPerElement: try fixture.bitsPerElementInStore(profile, options: options),
            bitsPerElementInImages: report.bitsPerElement, keyNMSE: report.keyError, valueNMSE: report.valueError,
            attentionError: report.attentionError, keyNMSEPerLayer: report.keyErrors,
            valueNMSEPerLayer: report.valueErrors, attentionErrorPerLayer: report.attentionErrors)
    }

    // MARK: - What is compared

    private func settings() throws -> [(name: String, profile: Profile, options: EncoderOptions)] {
        let profiles = try profile.isEmpty ? Profile.all : profile.map { try Profile.named($0) }
        guard ablation else { return profiles.map { ($0.name, $0, EncoderOptions()) } }
        let chosen = try profile.isEmpty ? ["vidkv-2-2", "vidkv-1.5-1.58"].map { try Profile.named($0) } : profiles
        return chosen.flatMap { profile in
            Self.ablations.map { ablation in
                var options = EncoderOptions()
                ablation.change(&options)
                return ("\(profile.name) \(ablation.name)", profile, options)
            }
        }
    }

    private static let ablations: [(name: String, change: @Sendable (inout EncoderOptions) -> Void)] = [
        ("", { _ in }),
        ("sinks not exact", { $0.exactPrefix = 0 }),
        ("keys rotated", { $0.unrotatesKeys = false }),
        ("clip search only", { $0.scaleSearch = .clip }),
        ("min-max", { $0.scaleSearch = .minMax }),
        ("published levels", { $0.levels = .published }),
        ("one mask per layer", { $0.maskScope = .perLayer }),
        ("channels by variance", { $0.channelSelection = .variance }),
        ("channels by outliers", { $0.channelSelection = .outlierCount }),
        ("no FFT", { $0.transformsKeys = false }),
        ("values rounded alone", { $0.balancesErrors = false }),
        (
            "as published",
            {
                $0.exactPrefix = 0
                $0.unrotatesKeys = false
                $0.scaleSearch = .minMax
                $0.levels = .published
                $0.maskScope = .perLayer
                $0.balancesErrors = false
                $0.protection = .listed
            }
        ),
    ]

    // MARK: - Tables

    private func show(_ rows: [Row], of fixture: CacheFixture) {
        print(
            "\(fixture.file.path): \(fixture.sample.tokenCount) tokens, \(fixture.sample.layers.count) layers, \(fixture.sample.elementType.name)"
        )
        var table = TextTable(
            .left("profile"), .right("bits"), .right("images"), .right("NMSE K"), .right("NMSE V"), .right("attention"))
        for row in rows {
            table.append(
                row.name, Format.decimal(row.bitsPerElement, places: 3),
                Format.decimal(row.bitsPerElementInImages, places: 3), Format.significant(row.keyNMSE, digits: 3),
                Format.significant(row.valueNMSE, digits: 3),
                row.attentionError.map { Format.significant($0, digits: 3) } ?? "")
        }
        print(table.text())
        if perLayer { showLayers(rows) }
    }

    private func showLayers(_ rows: [Row]) {
        var table = TextTable(
            .left("profile"), .right("layer"), .right("NMSE K"), .right("NMSE V"), .right("attention"))
        for row in rows {
            for layer in row.keyNMSEPerLayer.indices {
                table.append(
                    row.name, "\(layer)", Format.significant(row.keyNMSEPerLayer[layer], digits: 3),
                    Format.significant(row.valueNMSEPerLayer[layer], digits: 3),
                    row.attentionErrorPerLayer.indices.contains(layer)
                        ? Format.significant(row.attentionErrorPerLayer[layer], digits: 3) : "")
            }
        }
        print(table.text())
    }
}
