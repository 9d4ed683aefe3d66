import CLMDB

/// What a transaction is to LMDB. It has no public members: it lets the library see into a ``Transaction`` and nobody else.
@frozen
public struct TransactionHandle {
    @usableFromInline let pointer: OpaquePointer
    @usableFromInline let environment: ObjectIdentifier
    /// Where failures of a write transaction are noted; nil when reading.
    @usableFromInline let writeState: UnsafeMutablePointer<WriteState>?

    @usableFromInline
    init(pointer: OpaquePointer, environment: ObjectIdentifier, writeState: UnsafeMutablePointer<WriteState>?) {
        self.pointer = pointer
        self.environment = environment
        self.writeState = writeState
    }
}

/// A transaction of either kind: what reading functions ask for.
///
/// Only ``ReadTransaction`` and ``WriteTransaction`` conform. Both are borrowed by a closure and end with it, so that neither a
/// transaction nor a pointer into the map outlives the snapshot it belongs to.
public protocol Transaction: ~Copyable {
    var handle: TransactionHandle { get }
}

extension Transaction where Self: ~Copyable {
    /// The number of the snapshot: of the last committed write for a reader, of the coming one for a writer.
    public var id: Int { mdb_txn_id(handle.pointer) }
}

/// A consistent snapshot of the environment, lent by ``Environment/read(_:)``.
public struct ReadTransaction: ~Copyable, Transaction {
    public let handle: TransactionHandle

    init(handle: TransactionHandle) { self.handle = handle }
}

/// The environment's one writer, lent by ``Environment/write(_:)``. It sees its own changes; nobody else does until it has ended.
public struct WriteTransaction: ~Copyable, Transaction {
    public let handle: TransactionHandle
    @usableFromInline let state: UnsafeMutablePointer<WriteState>

    init(pointer: OpaquePointer, environment: ObjectIdentifier, state: UnsafeMutablePointer<WriteState>) {
        handle = TransactionHandle(pointer: pointer, environment: environment, writeState: state)
        self.state = state
    }
}

/// What happened in a write transaction that the one who runs it must know, even where the body swallowed the error.
@usableFromInline
struct WriteState {
    /// The first failure that leaves the transaction unfit to be committed.
    @usableFromInline var failure: LMDBError?
    /// Whether a `reserve` is being filled: LMDB forbids other writes until that is done.
    @usableFromInline var isFilling = false

    init() {}

    @usableFromInline
    @inline(never)
    mutating func note(_ error: LMDBError) -> LMDBError {
        if failure == nil || error.code == .mapFull { failure = error }
        return error
    }
}
