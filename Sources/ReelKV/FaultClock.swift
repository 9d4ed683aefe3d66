#if REELKV_FAULTS
    import struct Synchronization.Atomic

    /// What the time of day is off by. Only in builds that are made to crash (`tools/crash`).
    package enum FaultClock {
        private static let offset = Atomic<Int64>(0)

        package static var offsetSeconds: Int64 {
            get { offset.load(ordering: .relaxed) }
            set { offset.store(newValue, ordering: .relaxed) }
        }
    }
#endif
