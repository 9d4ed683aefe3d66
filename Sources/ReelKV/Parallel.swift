import struct Synchronization.Atomic
import Locking

/// Work on all cores, in order.
enum Parallel {
    /// Runs the codec's work per layer on all cores.
    static func perLayer(count: Int, body: @Sendable (Int) -> Void) {
        let next = Atomic(0)
        Workers.share(min(count, Platform.processorCount)) { _ in
            while true {
                let item = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard item < count else { return }
                body(item)
            }
        }
    }

    /// Calls `body` for 0..<count, several at a time; lower numbers are begun first. The first error ends the work: what has begun
    /// is finished, the rest is not begun, and the error is thrown.
    ///
    /// - Parameter body: the item, and which of the `threads` workers runs it, so that each can have scratch memory of its own.
    ///   It runs on several threads at once and must share nothing between workers that it writes without a lock.
    static func forEach(_ count: Int, threads: Int, _ body: (_ item: Int, _ worker: Int) throws -> Void) throws {
        let next = Atomic(0)
        let failure = Mutex<(any Error)?>(nil)
        Workers.share(min(threads, count)) { worker in
            while failure.withLock({ $0 == nil }) {
                let item = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard item < count else { return }
                do {
                    try body(item, worker)
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }
}
