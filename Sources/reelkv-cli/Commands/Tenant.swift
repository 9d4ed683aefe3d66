import ArgumentParser

struct TenantCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tenant", abstract: "Make, list and encrypt tenants.",
        discussion: """
            Nothing is shared or matched between tenants. One that is made with a key is encrypted: page images, tokens, frames, \
            provenance and engine state, but not names, sizes and times. The store never has the key: without it nothing that is \
            stored for the tenant can be read again.

            Examples:
              reelkv tenant new-key acme.key
              reelkv tenant add acme --new-key-file acme.key
              reelkv import lobby.safetensors --model qwen --tenant acme --key-file acme.key
            """,
        subcommands: [TenantAddCommand.self, TenantListCommand.self, TenantRekeyCommand.self, TenantNewKeyCommand.self])
}
