#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A thread of the operating system that nobody joins.
enum SystemThread {
    /// Runs `body` on a new thread. The signals that others send to the process are left to its own threads.
    ///
    /// - Throws: `StoreError.inputOutput` where there is none to be had.
    static func start(_ body: @escaping () -> Void) throws {
        let context = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
        let error = withoutSignals { create(context) }
        guard error == 0 else {
            Unmanaged<ThreadBody>.fromOpaque(context).release()
            throw StoreError.system("cannot start a thread", error: error)
        }
    }

    private static func create(_ context: UnsafeMutableRawPointer) -> Int32 {
        #if canImport(Darwin)
            var thread: pthread_t?
            let error = pthread_create(&thread, nil, runThread, context)
            if let thread, error == 0 { _ = pthread_detach(thread) }
        #else
            var thread = pthread_t()
            let error = pthread_create(&thread, nil, runThread, context)
            if error == 0 { _ = pthread_detach(thread) }
        #endif
        return error
    }

    /// Calls `body` with all signals blocked but those that tell of a fault of the thread's own.
    private static func withoutSignals<R>(_ body: () -> R) -> R {
        var blocked = sigset_t()
        var before = sigset_t()
        sigfillset(&blocked)
        for fault in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS] { sigdelset(&blocked, fault) }
        pthread_sigmask(SIG_BLOCK, &blocked, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        return body()
    }
}

private final class ThreadBody {
    let run: () -> Void

    init(_ run: @escaping () -> Void) { self.run = run }
}

#if canImport(Darwin)
    private typealias ThreadContext = UnsafeMutableRawPointer
#else
    private typealias ThreadContext = UnsafeMutableRawPointer?
#endif

/// Where a thread begins. A function of its own: the compiler (6.3) crashes on a closure here.
private func runThread(_ context: ThreadContext) -> UnsafeMutableRawPointer? {
    let context: UnsafeMutableRawPointer? = context
    if let context { Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
    return nil
}
