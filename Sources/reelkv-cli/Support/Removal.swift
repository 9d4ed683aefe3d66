import ReelKV

/// Something to delete by name.
enum Removal {
    case sequence(SequenceName)
    case model(String, force: Bool)
    case tenant(String)

    func run(in store: Store) throws {
        switch self {
        case .sequence(let name):
            try store.remove(name)
            print("removed \(name)")
        case .model(let name, let force):
            do {
                try store.removeModel(named: name, deletingSequences: force)
            } catch let error as StoreError where error.code == .inUse {
                throw Failure("\(error.message), with --force")
            }
            print("removed model '\(name)'")
        case .tenant(let name):
            try store.removeTenant(named: name)
            print("removed tenant '\(name)' with its videos and sessions")
        }
    }
}
