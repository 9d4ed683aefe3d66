import ArgumentParser
import ReelKV

struct TenantNewKeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "new-key", abstract: "Write a new random key into a file.",
        discussion: """
            The file is made for its owner alone, and one that is there is never written over.

            Example:
              reelkv tenant new-key acme.key
            """)

    @Argument(help: "The file.", completion: .file())
    var file: String

    func run() throws {
        try EncryptionKey.random().save(to: file)
        print("\(file) holds a new key: keep a copy in a safe place")
    }
}
