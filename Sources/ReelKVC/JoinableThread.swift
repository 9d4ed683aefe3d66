import CReelKV

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A thread of the system. It is joined, once, by whoever started it.
struct JoinableThread: @unchecked Sendable {
    private let thread: pthread_t

    private final class Work: Sendable {
        let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// - Throws: `REELKV_IO_ERROR` where the system has no thread to give.
    init(_ body: @escaping @Sendable () -> Void) throws {
        let work = Unmanaged.passRetained(Work(body))
        #if canImport(Darwin)
            var created: pthread_t?
            let error = pthread_create(&created, nil, { Self.run($0) }, work.toOpaque())
        #else
            var created = pthread_t()
            let error = pthread_create(&created, nil, { $0.flatMap { Self.run($0) } }, work.toOpaque())
        #endif
        guard error == 0 else {
            work.release()
            throw Failure(REELKV_IO_ERROR, "no thread for the restore: \(String(cString: strerror(error)))")
        }
        #if canImport(Darwin)
            thread = created.unsafelyUnwrapped
        #else
            thread = created
        #endif
    }

    private static func run(_ work: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        Unmanaged<Work>.fromOpaque(work).takeRetainedValue().body()
        return nil
    }

    /// Waits for the thread's end.
    func join() { pthread_join(thread, nil) }
}
