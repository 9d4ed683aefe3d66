import ArgumentParser
import ReelKV
import StoreModel

/// The process that does what it is told: an order a line on its standard input, a reply a line on its output.
struct ObeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "obey", abstract: "The process that does what it is told.", shouldDisplay: false)

    @Option var store: String

    func run() throws {
        let actor = try LocalActor(path: store)
        while let line = readLine() {
            guard let order = ModelOrder(line[...]) else { throw ValidationError("'\(line)' is no order") }
            FileHandleOutput.write(actor.perform(order).line + "\n")
        }
    }
}
