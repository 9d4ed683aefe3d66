import ArgumentParser
import ReelKV

struct TenantRekeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rekey", abstract: "Give an encrypted tenant another key.",
        discussion: """
            The new key is in effect at once, and the old one opens nothing any more. Records are encrypted anew by this command, page \
            images as compaction moves them: `reelkv compact --reseal` does all of them. Copies that somebody made of the store \
            before still open with the old key.

            Example:
              reelkv tenant rekey acme --key-file acme=acme.key --new-key-file new.key
              reelkv compact --reseal --key-file acme=new.key
            """)

    @OptionGroup var store: StoreOption

    @Argument(help: "The tenant's name.")
    var name: String

    @Option(help: ArgumentHelp("The key that is to be the tenant's.", valueName: "file"), completion: .file())
    var newKeyFile: String

    func run() throws {
        let key = try EncryptionKey(contentsOf: newKeyFile)
        try store.openToChange().rekey(tenant: name, to: key)
        print("tenant '\(name)' has another key: `reelkv compact --reseal` encrypts its pages anew")
    }
}
