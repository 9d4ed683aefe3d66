import ReelKV
import struct Synchronization.Atomic
import Testing
import Locking

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite("Threads of the engine")
struct WorkersTests {
    @Test("Work is done on another thread, and is seen to be done")
    func work() throws {
        let here = ThreadNumber()
        for round in 0..<1000 {
            let result = Mutex((0, ThreadNumber?.none))
            let task = try Workers.begin { result.withLock { $0 = (round, ThreadNumber()) } }
            task.wait()
            task.wait()
            result.withLock {
                #expect($0.0 == round)
                #expect($0.1 != here)
            }
        }
    }

    @Test("All work goes on at once, however much it is: what waits for other work never keeps it from a thread")
    func waitingWork() throws {
        let count = 400
        let arrived = Atomic(0)
        let tasks = try (0..<count).map { _ in
            try Workers.begin {
                arrived.add(1, ordering: .relaxed)
                while arrived.load(ordering: .relaxed) < count { usleep(100) }
            }
        }
        for task in tasks { task.wait() }
        #expect(arrived.load(ordering: .relaxed) == count)
    }

    @Test("Nothing that work has used is held when it is done")
    func lifetime() throws {
        final class Token: Sendable {}
        for _ in 0..<200 {
            weak var seen: Token?
            do {
                let token = Token()
                seen = token
                let task = try Workers.begin { withExtendedLifetime(token) {} }
                task.wait()
            }
            #expect(seen == nil)
        }
    }

    @Test("Signals that are sent to the process are left to threads of its own")
    func signals() throws {
        let blocked = Mutex<[Int32: Bool]>([:])
        let task = try Workers.begin {
            var mask = sigset_t()
            pthread_sigmask(SIG_BLOCK, nil, &mask)
            let found = [SIGINT, SIGTERM, SIGUSR1, SIGSEGV, SIGBUS].map { ($0, sigismember(&mask, $0) == 1) }
            blocked.withLock { $0 = Dictionary(uniqueKeysWithValues: found) }
        }
        task.wait()
        #expect(blocked.withLock { $0 } == [SIGINT: true, SIGTERM: true, SIGUSR1: true, SIGSEGV: false, SIGBUS: false])
    }
}

private struct ThreadNumber: Equatable, @unchecked Sendable {
    private let thread = pthread_self()

    init() {}
}
