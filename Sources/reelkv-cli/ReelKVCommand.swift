import ArgumentParser

@main
struct ReelKVCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "reelkv")
}
