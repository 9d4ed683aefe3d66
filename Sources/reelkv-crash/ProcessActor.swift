import ReelKV
import StoreModel

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Another process that has the store open, and does what it is told line by line.
final class ProcessActor: ModelActor {
    private let path: String
    private var child: ChildProcess

    init(path: String) throws {
        self.path = path
        child = try Self.start(path)
    }

    private static func start(_ path: String) throws -> ChildProcess {
        try ChildProcess(["obey", "--store", path], isTold: true)
    }

    func perform(_ order: ModelOrder) throws -> ModelOrder.Reply {
        child.tell(order.line)
        guard let line = child.answer(), let reply = ModelOrder.Reply(line[...]) else {
            child.wait(seconds: 1)
            throw ModelRun.Disagreement(description: "no answer to '\(order.line.prefix(60))': \(child.ending)")
        }
        return reply
    }

    func restart(isKilled: Bool) throws {
        if isKilled { child.send(SIGKILL) }
        child.endInput()
        child.wait(seconds: ChildProcess.patience)
        child = try Self.start(path)
    }
}
