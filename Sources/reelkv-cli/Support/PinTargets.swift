import ArgumentParser
import ReelKV

/// The videos and sessions that a command pins or unpins.
struct PinTargets: ParsableArguments {
    @OptionGroup var store: StoreOption
    @OptionGroup var tenant: TenantOption

    @Argument(help: SequenceArgument.help)
    var names: [SequenceArgument]

    /// Pins or unpins all of them, or none where one does not exist.
    func set(_ isPinned: Bool) throws {
        let store = try store.openToChange()
        let names = names.map { $0.name(of: tenant) }
        for name in names { _ = try store.info(of: name) }
        for name in names {
            let isNew = try store.setPinned(isPinned, name)
            print("\(name) \(isNew ? "is" : "was") \(isPinned ? "pinned" : "not pinned")\(isNew ? "" : " already")")
        }
    }
}
