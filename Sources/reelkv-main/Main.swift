import ReelKVCommands

@main
enum Main {
    static func main() { ReelKVCommand.main() }
}
