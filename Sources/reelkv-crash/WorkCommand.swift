import ArgumentParser
import KVCodec
import LMDB
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The process that is killed, stopped, or met by another: changes a store in every way until then.
struct WorkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "work", abstract: "The process that is killed.", shouldDisplay: false)

    @Option var store: String
    @Option var seed: UInt64
    /// Microseconds after which it ends, once the store is open.
    @Option var delay: UInt32?
    /// Fault points that it passes before it ends.
    @Option var passes: Int?
    /// Whether it is stopped where it would end.
    @Flag var stops = false
    /// Whether it is stopped as soon as the store is open.
    @Flag var waits = false
    /// Whether it evicts and demotes.
    @Flag var evicts = false
    /// What it does; by default everything.
    @Option var verbs: String?
    @Flag var relaxed = false
    /// Steps after which it ends by itself.
    @Option var steps: Int?
    /// Whether a step may fail because the system does.
    @Flag var mayFail = false
    /// Whether others change the store meanwhile, so that a step may find something else than it expects.
    @Flag var contended = false

    func run() throws {
        let chosen = try verbs.map(WorkVerb.list) ?? WorkVerb.choices(evicting: evicts)
        let limits = CrashWork.Tolerance(
            evictions: evicts || chosen.contains(where: \.evicts), failures: mayFail, contention: contended)
        var work: CrashWork
        do {
            work = try CrashWork(
                path: store, durability: relaxed ? .relaxed : .durable, random: SplitMix64(seed: seed), verbs: chosen,
                tolerance: limits)
        } catch let error as StoreError where contended && error.code == .inUse {
            CrashJournal.say(.heldUp)
            return
        }
        let signal = stops ? SIGSTOP : SIGKILL
        #if REELKV_FAULTS
            if let passes {
                FaultPoint.signal = signal
                FaultPoint.report = { CrashJournal.say(.dies("\($0)")) }
                FaultPoint.arm(after: passes)
            }
        #else
            guard passes == nil else { throw ValidationError("built without fault points: run tools/crash") }
        #endif
        if waits { kill(getpid(), SIGSTOP) }
        if let delay { try Self.send(signal, after: delay) }
        if let steps {
            for _ in 0..<steps { try work.step() }
        } else {
            while true { try work.step() }
        }
    }

    /// Sends this process a signal from another thread.
    private static func send(_ signal: CInt, after microseconds: UInt32) throws {
        var thread = pthread_t()
        let order = UnsafeMutablePointer<(signal: CInt, delay: UInt32)>.allocate(capacity: 1)
        order.initialize(to: (signal, microseconds))
        let failure = pthread_create(
            &thread, nil,
            { order in
                if let order = order?.load(as: (signal: CInt, delay: UInt32).self) {
                    usleep(order.delay)
                    kill(getpid(), order.signal)
                }
                return nil
            }, order)
        if failure != 0 { throw CrashRun.Fault(description: "no thread: \(String(cString: strerror(failure)))") }
    }
}
