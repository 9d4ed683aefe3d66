#if REELKV_TSAN
    #if canImport(Glibc)
        import Glibc
    #else
        import Darwin
    #endif

    /// A lock and what it guards, with the interface of `Synchronization.Mutex`.
    ///
    /// That one waits in the kernel by itself, where ThreadSanitizer does not see who goes before whom, and takes what it guards for races.
    /// POSIX's locks it knows.
    public struct Mutex<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
        private let lock: UnsafeMutablePointer<pthread_mutex_t>
        private let value: UnsafeMutablePointer<Value>

        public init(_ initialValue: consuming sending Value) {
            lock = .allocate(capacity: 1)
            pthread_mutex_init(lock, nil)
            value = .allocate(capacity: 1)
            value.initialize(to: initialValue)
        }

        deinit {
            pthread_mutex_destroy(lock)
            lock.deallocate()
            value.deinitialize(count: 1)
            value.deallocate()
        }

        public borrowing func withLock<Result: ~Copyable, Failure: Error>(
            _ body: (inout sending Value) throws(Failure) -> sending Result
        ) throws(Failure) -> sending Result {
            pthread_mutex_lock(lock)
            defer { pthread_mutex_unlock(lock) }
            return try body(&value.pointee)
        }
    }
#else
    public import Synchronization

    /// A lock and what it guards.
    public typealias Mutex<Value: ~Copyable> = Synchronization.Mutex<Value>
#endif
