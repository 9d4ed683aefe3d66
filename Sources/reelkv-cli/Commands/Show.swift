import ArgumentParser
import FoundationEssentials
import KVCodec
import ReelKV
import Rendering

struct ShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show a video or session: what it is, its tensors, its error.",
        discussion: """
            With --layer it draws the magnitudes of a head's keys or values, channels by tokens, as they are stored: in the \
            terminal, and as PNG or SVG. Marks show the anomalous channels of the pages (those that keep 2 bits where the others \
            get 1) and the tokens that are protected or exact.

            With --errors it plots the error of each layer's keys and values, mean over the pages, as measured when they were \
            encoded.

            Examples:
              reelkv show video/lobby
              reelkv show video/lobby --layer 14 --key --head 1 --tokens 0:512 --svg keys.svg
              reelkv show video/lobby --errors
            """)

    enum Tensor: EnumerableFlag {
        case key, value

        var kind: TensorKind { self == .key ? .key : .value }
    }

    @Argument(help: SequenceArgument.help)
    var source: SequenceArgument

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Option(help: ArgumentHelp("Draw this layer's magnitudes.", valueName: "n"))
    var layer: Int?

    @Flag(help: "Keys (default) or values.")
    var tensor: Tensor = .key

    @Option(help: ArgumentHelp("Which KV head.", valueName: "n"))
    var head = 0

    @Option(help: ArgumentHelp("Only these tokens; by default the first \(MagnitudeMap.tokensMax).", valueName: "a..<b"))
    var tokens: IndexRange?

    @Flag(help: "Plot the error of each layer.")
    var errors = false

    @Option(help: ArgumentHelp("Write the map as PNG.", valueName: "file"), completion: .file(extensions: ["png"]))
    var png: String?

    @Option(help: ArgumentHelp("Write the map or plot as SVG.", valueName: "file"), completion: .file(extensions: ["svg"]))
    var svg: String?

    @Flag(help: "Overwrite the PNG or SVG file if there is one.")
    var force = false

    @OptionGroup var output: OutputOption

    func validate() throws {
        if errors, layer != nil { throw ValidationError("Give --layer or --errors, not both.") }
        if layer == nil, png != nil || tokens != nil { throw ValidationError("--png and --tokens need --layer.") }
        if layer == nil, !errors, svg != nil { throw ValidationError("--svg needs --layer or --errors.") }
    }

    func run() throws {
        for file in [png, svg].compactMap(\.self) where !force && FileManager.default.fileExists(atPath: file) {
            throw Failure("\(file) exists: choose another file, or overwrite it with --force")
        }
        let name = source.name(of: tenant)
        if errors {
            let store = try store.openToRead()
            return try plotErrors(store, try store.prefix(of: name, isCounted: false), name)
        }
        guard let layer else {
            let store = try store.openToLook()
            let details = SequenceDetails(try store.info(of: name), try store.prefix(of: name, isCounted: false), store)
            return try output.write(details) { $0.text() }
        }
        let store = try store.openToRead()
        let info = try store.info(of: name)
        let map = try MagnitudeMap(
            store, try store.prefix(of: name, isCounted: false), layer: layer, tensor: tensor.kind, head: head,
            tokens: try tokens?.resolved(within: info.tokenCount, what: "tokens"), title: name.description)
        if let png { try write(Data(map.heatMap.png()), to: png) }
        if let svg { try write(Data(map.heatMap.svg().utf8), to: svg) }
        try output.write(map.report) { _ in map.heatMap.text(terminal: .standardOutput()) }
    }

    private func plotErrors(_ store: Store, _ prefix: StoredPrefix, _ name: SequenceName) throws {
        let errors = try LayerErrors(store, prefix, name: name)
        if let svg { try write(Data(errors.plot.svg().utf8), to: svg) }
        try output.write(errors) { $0.plot.text(terminal: .standardOutput()) }
    }

    private func write(_ data: Data, to file: String) throws {
        do {
            try data.write(to: URL(filePath: file), options: .atomic)
        } catch {
            throw Failure("\(file) cannot be written: check that the folder exists, may be written and has room")
        }
    }
}
