import ArgumentParser
import ReelKV

struct PinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Keep the pages of videos and sessions from being evicted.",
        discussion: """
            Videos are pinned when they are imported, sessions are not. A store whose quota leaves no room but pinned pages \
            refuses what is to be stored. `reelkv ls` shows what is pinned.

            Example:
              reelkv pin session/alice video/lobby
            """)

    @OptionGroup var targets: PinTargets

    func run() throws {
        try targets.set(true)
    }
}
