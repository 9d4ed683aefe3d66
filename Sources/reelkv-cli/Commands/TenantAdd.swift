import ArgumentParser
import ReelKV

struct TenantAddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Make a tenant, encrypted if a key is given.",
        discussion: """
            A tenant that is not encrypted needs no making: it comes with what is first stored for it. Whether it is never changes.

            Example:
              reelkv tenant add acme --new-key-file acme.key
            """)

    @OptionGroup var store: StoreOption

    @Argument(help: "The tenant's name.")
    var name: String

    @Option(help: ArgumentHelp("The key that is to be the tenant's.", valueName: "file"), completion: .file())
    var newKeyFile: String?

    func run() throws {
        let key = try newKeyFile.map { try EncryptionKey(contentsOf: $0) }
        try store.openToChange().createTenant(named: name, key: key)
        print("tenant '\(name)'" + (key == nil ? "" : ", encrypted: keep the key, nothing can be read without it"))
    }
}
