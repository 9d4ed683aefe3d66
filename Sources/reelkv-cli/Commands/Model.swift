import ArgumentParser

struct ModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Register, list, show and remove models.",
        discussion: """
            A model is the geometry of its cache and a fingerprint of its weights. Nothing is ever matched across two \
            fingerprints.

            Example:
              reelkv model add qwen --spec config.json --fingerprint $(sha256sum model.safetensors | cut -c -64)
            """,
        subcommands: [ModelAddCommand.self, ModelListCommand.self, ModelShowCommand.self, ModelRemoveCommand.self])
}
