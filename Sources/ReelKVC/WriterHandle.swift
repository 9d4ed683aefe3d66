import KVCodec
import ReelKV
import Locking

/// A writer that a caller holds. Calls from several threads at once, which the interface forbids, wait for each other.
final class WriterHandle: HandleObject, @unchecked Sendable {
    static let noun = "a writer"
    private let lock = Mutex<Void>(())
    private let writer: SequenceWriter

    init(_ writer: SequenceWriter) { self.writer = writer }

    func use<Result>(_ body: (SequenceWriter) throws -> Result) rethrows -> Result {
        try lock.withLock { _ in try body(writer) }
    }
}
