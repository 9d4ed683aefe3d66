import ArgumentParser
import ModelSpecFiles
import ReelKV

struct ModelAddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Register a model.",
        discussion: """
            The spec is JSON with layers, kv_heads, head_dim, dtype, rope and fingerprint, or a Hugging Face config.json, which \
            needs --fingerprint. Adding the same model again changes nothing.

            Example:
              reelkv model add smollm2 --spec smollm2.json
            """)

    @OptionGroup var store: StoreOption

    @Argument(help: "What the store is to call the model.")
    var name: String

    @Option(
        help: ArgumentHelp("The spec or config.json.", valueName: "file"), completion: .file(extensions: ["json"]))
    var spec: String

    @Option(
        help: ArgumentHelp("64 hexadecimal digits that identify the weights, such as their SHA-256.", valueName: "hex"))
    var fingerprint: String?

    func run() throws {
        let file = try ModelSpecFile(path: spec, name: name, fingerprint: fingerprint)
        for warning in file.warnings { StandardError.write("reelkv: warning: \(warning)\n") }
        try store.openToChange().addModel(file.spec)
        print("model '\(name)': \(ModelReport(file.spec).summary)")
    }
}
