public import KVCodec
import Locking

/// Keeps a stored prefix from being evicted, in all processes, until it is released or let go, or the process ends.
///
/// A lease costs a write of 64 bytes that waits for nothing. It does not keep a prefix from being deleted by name.
public final class Lease: Sendable {
    private let table: LeaseTable
    /// nil when there is nothing to hold any more.
    private let hash: Mutex<Digest?>

    /// - Parameter hash: the prefix's last node; nil when it is empty.
    init(_ table: LeaseTable, hash: Digest?, tenant: UInt32) throws {
        if let hash { try table.take(hash, tenant: tenant) }
        self.table = table
        self.hash = Mutex(hash)
    }

    deinit { release() }

    /// Ends the lease. Doing so again changes nothing.
    public func release() {
        let hash = hash.withLock { hash in
            defer { hash = nil }
            return hash
        }
        if let hash { table.release(hash) }
    }
}

/// A lease that a running process holds.
public struct LeaseInfo: Hashable, Sendable {
    public var processID: UInt32
    /// When the process started, in the system's own unit: a process id that was used again has another.
    public var processStarted: UInt64
    /// The last page of what is leased.
    public var chainHash: Digest
    /// Unix time.
    public var takenSeconds: Int64
    /// How long it has been held, by this machine's clock.
    public var heldSeconds: Int64
}

extension Store {
    /// Keeps `prefix` from being evicted until the lease is released, let go, or the process ends. A restore does so for itself; a
    /// lease of its own is for a prefix that is to be restored later, or several times.
    ///
    /// Waits for an eviction that is being committed, if there is one.
    ///
    /// - Throws: `StoreError` with the codes `pageUnavailable` when the prefix was deleted or evicted since it was matched, `readOnly` for
    ///   a store that was opened read-only, which changes nothing in the folder (its restores are safe all the same), `noSpace`.
    public func lease(_ prefix: StoredPrefix) throws -> Lease {
        guard let tip = prefix.segments.last?.hash else {
            try checkWritable()
            return try Lease(leaseTable, hash: nil, tenant: 0)
        }
        let lease = try lease(tip, tenant: prefix.tenantID)
        guard try read({ try index.nodes.contains(tip, in: $0) }) else {
            throw StoreError(.pageUnavailable, "a page of this prefix was deleted or evicted meanwhile: match again")
        }
        return lease
    }

    /// Leases a node that may be stored or not. Once this has returned, a node that is found in the index is not evicted.
    func lease(_ hash: Digest, tenant: UInt32) throws -> Lease {
        try checkWritable()
        let lease = try Lease(leaseTable, hash: hash, tenant: tenant)
        try leaseTable.awaitEvictions()
        return lease
    }

    /// A lease for a moment's work that is safe without one, where one can be had: it waits for nothing and does not look whether the
    /// prefix is still stored.
    func leaseIfPossible(_ prefix: StoredPrefix) -> Lease? {
        guard access == .readWrite, let tip = prefix.segments.last?.hash else { return nil }
        return try? Lease(leaseTable, hash: tip, tenant: prefix.tenantID)
    }

    /// The leases of all running processes, the longest held first.
    public func leases() throws -> [LeaseInfo] {
        let now = Platform.unixSeconds()
        return try leaseTable.all(removingLapsed: access == .readWrite).flatMap { contents in
            contents.leases.map { lease in
                LeaseInfo(
                    processID: contents.header?.processId ?? 0, processStarted: contents.header?.processStarted ?? 0,
                    chainHash: lease.chainHash, takenSeconds: lease.takenSeconds,
                    heldSeconds: max(0, now.subtractingReportingOverflow(lease.takenSeconds).partialValue))
            }
        }.sorted { $0.takenSeconds < $1.takenSeconds }
    }

    /// The nodes that are leased now: they and their ancestors must stay. A lease that is taken after this may be missed: an eviction
    /// uses ``excludingLeased(_:)``.
    package func leased() throws -> Set<Digest> { try leaseTable.leased() }

    /// Runs an eviction, up to its commit, with every node that must stay. Leases that are taken meanwhile wait for it to end; so
    /// `body` must be short and take none. It must not be called within a write transaction.
    package func excludingLeased<R>(_ body: (Set<Digest>) throws -> R) throws -> R {
        try checkWritable()
        return try leaseTable.excludingLeased(body)
    }
}
