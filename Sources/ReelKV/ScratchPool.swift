import KVCodec
import Locking

/// Memory that decoding works in, kept from one restore to the next: with it stay the angles of positions that every sequence begins with.
enum ScratchPool {
    /// Not for two threads at once: whoever takes one out has it alone.
    private struct Idle: @unchecked Sendable {
        let scratch: DecodeScratch
    }

    private static let idle = Mutex<[Idle]>([])
    private static let keptMax = 16
    /// One that a page of unusual shape has made larger goes.
    private static let bytesMax = 16 << 20

    /// Calls `body` with so many scratches.
    static func withScratches<R>(_ count: Int, _ body: ([DecodeScratch]) throws -> R) rethrows -> R {
        var scratches = idle.withLock { idle in
            let kept = idle.suffix(count).map(\.scratch)
            idle.removeLast(kept.count)
            return kept.map { Idle(scratch: $0) }
        }.map(\.scratch)
        while scratches.count < count { scratches.append(DecodeScratch()) }
        defer {
            let kept = scratches.filter { $0.byteCount <= bytesMax }.map { Idle(scratch: $0) }
            idle.withLock { $0.append(contentsOf: kept.prefix(max(0, keptMax - $0.count))) }
        }
        return try body(scratches)
    }
}
