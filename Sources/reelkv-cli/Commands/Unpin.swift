import ArgumentParser
import ReelKV

struct UnpinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unpin", abstract: "Let the pages of videos and sessions be evicted.",
        discussion: """
            They stay until room is needed, or they have been unused for longer than `reelkv quota` allows. What is not pinned is \
            there as a whole or gone: when its last page is evicted, its name is gone.

            Example:
              reelkv unpin video/lobby
            """)

    @OptionGroup var targets: PinTargets

    func run() throws {
        try targets.set(false)
    }
}
