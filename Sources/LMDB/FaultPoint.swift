#if REELKV_FAULTS
    import struct Synchronization.Atomic

    #if canImport(Glibc)
        import Glibc
    #else
        import Darwin
    #endif

    /// A named place between two states that a crash must not fall between. Only in builds that are made to crash (`tools/crash`).
    package enum FaultPoint {
        /// Set once, before a store is opened: who is told of the point that is reached last, and what the process gets there: SIGKILL, or
        /// SIGSTOP, after which it may go on.
        nonisolated(unsafe) package static var report: (StaticString) -> Void = { _ in }
        nonisolated(unsafe) package static var signal = SIGKILL
        /// Points that are passed until then.
        private static let left = Atomic<Int>(.max)

        package static func arm(after passes: Int) { left.store(passes, ordering: .relaxed) }

        package static func reached(_ name: StaticString) {
            guard left.subtract(1, ordering: .relaxed).newValue == 0 else { return }
            report(name)
            kill(getpid(), signal)
        }
    }
#else
    package enum FaultPoint {
        @inlinable
        @inline(__always)
        package static func reached(_ name: StaticString) {}
    }
#endif
