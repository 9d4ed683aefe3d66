import ArgumentParser
import ReelKV
import Rendering

struct InitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Create a store in a new or empty folder.",
        discussion: """
            Pages are shared and matched as a whole or by their beginning: smaller pages share more finely, larger ones compress \
            better. Space of deleted pages comes back a volume at a time.

            Example:
              reelkv init --store ~/kv --page-tokens 256 --volume-bytes 256MiB
            """)

    @OptionGroup var store: StoreFolderOption

    @Option(help: ArgumentHelp("Tokens of a page, a multiple of 32 in 32...4096.", valueName: "n"))
    var pageTokens = Store.Options().pageTokens

    @Option(help: ArgumentHelp("Bytes at which a volume is sealed and the next begun, such as 256MiB.", valueName: "size"))
    var volumeBytes: ByteSize?

    func run() throws {
        var options = Store.Options()
        options.pageTokens = pageTokens
        if let volumeBytes { options.volumeBytesMax = volumeBytes.bytes }
        let store = try Store.create(at: store.path(), options: options)
        print(
            "created a store in \(store.path): pages of \(store.pageTokens) tokens, volumes of "
                + "\(Format.bytes(options.volumeBytesMax))"
        )
    }
}
