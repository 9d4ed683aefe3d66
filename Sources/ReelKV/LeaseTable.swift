import KVCodec
import Locking

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What this process has leased, counted, and what all processes have.
///
/// A lease is a slot in the process's file: no transaction, and nothing to tidy up when the process dies.
final class LeaseTable: Sendable {
    private struct Slot {
        var number: Int
        /// How many leases of the process are on the node.
        var count: Int
    }

    private struct State {
        /// Made with the first lease.
        var file: LeaseFile?
        var slots: [Digest: Slot] = [:]
        /// Slots before `next` that are not in use.
        var free: [Int] = []
        /// Slot 0 is the file's header.
        var next = 1
    }

    private let folder: String
    private let process = Platform.processID
    private let state = Mutex(State())

    static let folderName = "leases"
    /// A file that had more slots than this is cut when none is in use.
    private static let slotsKept = 64

    init(folder: String) { self.folder = folder }

    // MARK: - This process's leases

    /// Leases a node, whether it is stored or not.
    ///
    /// - Throws: `StoreError.noSpace` when it cannot be written down, and the system's errors.
    func take(_ hash: Digest, tenant: UInt32) throws {
        guard Platform.processID == process else {
            throw StoreError(.forked, "the store in \(folder) was opened before a fork; open it again in the child")
        }
        try state.withLock { state in
            if state.slots[hash] != nil {
                state.slots[hash]?.count += 1
                return
            }
            let file = try state.file ?? makeFile()
            state.file = file
            let number = state.free.last ?? state.next
            guard number < LeaseFile.slotsMax else {
                throw StoreError(.noSpace, "this process has \(state.slots.count) leases: release some")
            }
            let record = LeaseRecord(chainHash: hash, takenSeconds: Platform.unixSeconds(), tenantId: tenant, checksum: 0)
            try file.write(record, slot: number)
            if state.free.popLast() == nil { state.next += 1 }
            state.slots[hash] = Slot(number: number, count: 1)
        }
    }

    func release(_ hash: Digest) {
        // a forked child's leases are its parent's
        guard Platform.processID == process else { return }
        state.withLock { state in
            guard let slot = state.slots[hash] else { return }
            guard slot.count == 1 else {
                state.slots[hash]?.count -= 1
                return
            }
            state.slots[hash] = nil
            // At worst the lease stands until the process ends.
            try? state.file?.clear(slot: slot.number)
            state.free.append(slot.number)
            if state.slots.isEmpty, state.next > Self.slotsKept, (try? state.file?.cut(toSlots: 1)) != nil {
                state.free = []
                state.next = 1
            }
        }
    }

    private func makeFile() throws -> LeaseFile {
        let file = try LeaseFile(in: folder)
        // those of processes that were killed, so that they do not gather where nothing is ever evicted
        _ = try? all(removingLapsed: true)
        return file
    }

    // MARK: - All processes' leases

    /// What every process has leased now. The files of processes that have ended are removed on the way, if they may be.
    func all(removingLapsed: Bool) throws -> [LeaseFile.Contents] {
        guard Platform.isDirectory(folder) else { return [] }
        return try Platform.list(folder).filter(LeaseFile.isName).compactMap { name in
            let path = folder + "/" + name
            if let contents = try LeaseFile.read(path) { return contents }
            if removingLapsed { try? LeaseFile.removeLapsed(path) }
            return nil
        }
    }

    /// Runs `body` with every node that is leased. Whoever takes a lease meanwhile waits until `body` has ended, to see then what is
    /// left. `body` must take no lease, and must not run within a write transaction: another's `body` may be waiting for that.
    func excludingLeased<R>(_ body: (Set<Digest>) throws -> R) throws -> R {
        try Platform.makeDirectory(folder)
        let gate = try Gate(folder: folder, LOCK_EX)
        defer { withExtendedLifetime(gate) {} }
        return try body(try leased())
    }

    func leased() throws -> Set<Digest> {
        try all(removingLapsed: true).reduce(into: []) { leased, contents in
            leased.formUnion(contents.leases.lazy.map(\.chainHash))
            leased.formUnion(contents.torn)
        }
    }

    /// Waits until no eviction is under way that may have missed a lease taken before this call.
    func awaitEvictions() throws { _ = try Gate(folder: folder, LOCK_SH) }

    /// A lock on the folder, as long as this lives.
    private struct Gate: ~Copyable {
        private let descriptor: Int32
        private let process = Platform.processID

        init(folder: String, _ operation: Int32) throws {
            descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
            guard descriptor >= 0 else { throw StoreError.system("cannot open \(folder)") }
            while flock(descriptor, operation) != 0 {
                if errno == EINTR { continue }
                let error = errno
                close(descriptor)
                throw StoreError.system("cannot lock \(folder)", error: error)
            }
        }

        /// A child that was forked meanwhile holds the folder open too: closing alone would leave it locked.
        deinit {
            if process == Platform.processID { flock(descriptor, LOCK_UN) }
            close(descriptor)
        }
    }
}
