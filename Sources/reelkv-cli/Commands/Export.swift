import ArgumentParser
import FoundationEssentials
import KVCodec
import ReelKV
import Rendering

struct ExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Write a stored cache, or a part of it, as a safetensors file.",
        discussion: """
            The file holds layers.N.key and layers.N.value of [1, heads, tokens, dim], input_ids with the placeholders -1, -2, \
            … of each media, and metadata that says what they stand for: `import` and `match` take it as it is. What was \
            imported under the profile exact comes out bit for bit. Layers keep their numbers.

            --frames and --seconds select whole frames of a video; its frame table is cut along.

            Example:
              reelkv export video/lobby part.safetensors --seconds '10..<20' --layers 0:4
            """)

    enum Precision: String, ExpressibleByArgument, CaseIterable {
        case float16, bfloat16, float32

        var elementType: ElementType? { ElementType(name: rawValue) }
    }

    @Argument(help: SequenceArgument.help)
    var source: SequenceArgument

    @Argument(help: "The file to write.", completion: .file(extensions: ["safetensors"]))
    var file: String

    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Option(help: ArgumentHelp("Only these layers: 'a..<b', 'a...b' or a:b.", valueName: "a..<b"))
    var layers: IndexRange?

    @Option(help: ArgumentHelp("Only these tokens.", valueName: "a..<b"))
    var tokens: IndexRange?

    @Option(help: ArgumentHelp("Only these frames of a video.", valueName: "a..<b"))
    var frames: IndexRange?

    @Option(help: ArgumentHelp("Only the frames shown in this time.", valueName: "a..<b"))
    var seconds: SecondsRange?

    @Option(help: "The elements' type; by default the model's.")
    var dtype: Precision?

    @Flag(help: "Overwrite the file if there is one.")
    var force = false

    @OptionGroup var quiet: QuietOption
    @OptionGroup var output: OutputOption

    func validate() throws {
        if [tokens != nil, frames != nil, seconds != nil].count(where: { $0 }) > 1 {
            throw ValidationError("Give one of --tokens, --frames and --seconds.")
        }
    }

    func run() throws {
        let name = source.name(of: tenant)
        let store = try store.openToRead()
        guard force || !FileManager.default.fileExists(atPath: file) else {
            throw Failure("\(file) exists: choose another file, or overwrite it with --force")
        }
        let info = try store.info(of: name)
        let range = try tokenRange(of: info)
        let prefix = try store.prefix(of: name)
        guard range.upperBound <= prefix.tokenCount else {
            guard prefix.tokenCount > 0 else {
                throw Failure("the first page of \(name) is gone or damaged: compute and import its tokens again")
            }
            throw Failure(
                "only the first \(prefix.tokenCount) of the \(info.tokenCount) tokens of \(name) can be read, the page "
                    + "behind them is damaged: export --tokens 0..<\(prefix.tokenCount), or compute and import the rest again"
            )
        }
        let layers = try self.layers?.resolved(within: prefix.model.layers.count, what: "layers")
        let job = ExportJob(
            store: store, info: info, prefix: prefix, tokens: range, layers: layers ?? 0..<prefix.model.layers.count,
            elementType: dtype?.elementType ?? prefix.model.elementType)
        let result = try job.run(to: file) { quiet.progress("export", total: $0, unit: .bytes) }
        try output.write(result) { $0.text() }
    }

    private func tokenRange(of info: SequenceInfo) throws -> Range<Int> {
        if let tokens { return try tokens.resolved(within: info.tokenCount, what: "tokens") }
        guard frames != nil || seconds != nil else {
            guard info.tokenCount > 0 else { throw Failure("\(info.name) holds no tokens: there is nothing to export") }
            return 0..<info.tokenCount
        }
        guard !info.frames.isEmpty else {
            throw Failure("\(info.name) has no frame table: select a part of it with --tokens")
        }
        let selected: ArraySlice<VideoFrame>
        if let frames {
            selected = info.frames[try frames.resolved(within: info.frames.count, what: "frames")]
        } else {
            selected = info.frames.filter { seconds?.contains($0.seconds) ?? false }[...]
        }
        guard let first = selected.map(\.firstToken).min(),
            let end = selected.map({ $0.firstToken + $0.tokenCount }).max(), first < end
        else {
            throw Failure(
                "no frame of \(info.name) is shown in \(seconds?.text ?? "") seconds: its \(info.frames.count) frames are "
                    + "shown from \(info.frames[0].seconds) to \(info.frames[info.frames.count - 1].seconds)"
            )
        }
        return first..<end
    }
}
