import LMDB
import Synchronization

/// The volumes of a store: opens them when they are asked for, and appends to the one that this process owns.
///
/// Knows volume files and who may write them. Does not know what a page image means.
///
/// Each writing process owns a volume of its own, by a lock that ends with the process: one that a process left behind is
/// taken over, so that a store that is opened often does not fill with small volumes.
final class VolumeSet: Sendable {
    /// Where an appended image lies.
    struct Location: Hashable {
        var volume: UInt64
        var page: UInt64
    }

    private struct State {
        var open: [UInt64: Volume] = [:]
        var active: Volume?
        /// The volumes that this process owns: the active one, and sealed ones with images not yet published.
        var locks: [UInt64: FileLock] = [:]
        /// Images appended that no node refers to yet, by volume.
        var unpublished: [UInt64: Int] = [:]
    }

    private let folder: String
    private let index: Index
    private let storeID: UInt64
    private let bytesMax: Int
    private let isReadOnly: Bool
    private let state = Mutex(State())
    /// Held while appending, so that one batch after another goes into the active volume.
    private let appending = Mutex(())

    /// Open volumes above this number are closed when nobody uses them: each holds a map and a file descriptor.
    private static let openMax = 256

    static let folderName = "volumes"

    init(folder: String, index: Index, record: StoreRecord, isReadOnly: Bool) {
        self.folder = folder
        self.index = index
        storeID = record.storeId
        bytesMax = Int(clamping: record.volumeBytesMax)
        self.isReadOnly = isReadOnly
    }

    func path(of id: UInt64) -> String { "\(folder)/\(Self.fileName(of: id))" }

    static func fileName(of id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return String(repeating: "0", count: max(0, 8 - digits.count)) + digits + ".mdb"
    }

    // MARK: - Reading

    /// The open volume.
    /// - Throws: `StoreError.pageUnavailable` when the file is gone, or is not what it should be.
    func volume(_ id: UInt64) throws -> Volume {
        if let open = state.withLock({ $0.open[id] }) { return open }
        let record = try index.environment.read { try index.volume(id, in: $0) }
        guard let record, Platform.exists(path(of: id)) else {
            throw StoreError(.pageUnavailable, "volume \(Self.fileName(of: id)) is gone; its pages count as not stored")
        }
        let mode: Volume.Mode = record.isSealed || isReadOnlyMedium ? .sealed : .shared
        return try state.withLock { state in
            if let open = state.open[id] { return open }
            let volume = try Volume(id: id, path: path(of: id), storeID: storeID, bytesMax: bytesMax, mode: mode)
            if state.open.count >= Self.openMax { state.open = state.open.filter { $0.value === state.active } }
            state.open[id] = volume
            return volume
        }
    }

    /// Where no lock file can be made, nobody can be writing either.
    private var isReadOnlyMedium: Bool { isReadOnly && !Platform.isWritable(folder) }

    // MARK: - Appending

    /// Appends page images to this process's volume; they are on the disk when this returns. Their volumes are kept until the caller
    /// says by `settle` that nodes refer to them, or that none ever will.
    func append(_ images: [some PageBytes]) throws -> [Location] {
        try appending.withLock { _ in
            var locations: [Location] = []
            var isDone = false
            defer { if !isDone { settle(locations) } }
            var rest = images[...]
            while !rest.isEmpty {
                let volume = try activeVolume()
                var batch = rest
                var pages = try volume.append(Array(batch))
                while pages == nil, batch.count > 1 {
                    batch = batch.prefix(batch.count / 2)
                    pages = try volume.append(Array(batch))
                }
                if let pages {
                    state.withLock { $0.unpublished[volume.id, default: 0] += pages.count }
                    locations += pages.map { Location(volume: volume.id, page: $0) }
                    rest = rest.dropFirst(batch.count)
                } else {
                    try sealActive(volume, lacking: rest.first?.count ?? 0)
                }
            }
            isDone = true
            return locations
        }
    }

    /// Ends the hold on appended images: they are published now, or never will be.
    func settle(_ locations: [Location]) {
        state.withLock { state in
            for location in locations {
                let left = state.unpublished[location.volume, default: 1] - 1
                state.unpublished[location.volume] = left > 0 ? left : nil
                if left <= 0, state.active?.id != location.volume { state.locks[location.volume] = nil }
            }
        }
    }

    private func activeVolume() throws -> Volume {
        if let active = state.withLock({ $0.active }) { return active }
        let volume = try adoptVolume() ?? newVolume()
        state.withLock {
            $0.active = volume
            $0.open[volume.id] = volume
        }
        return volume
    }

    /// Takes over an active volume whose writer has ended.
    private func adoptVolume() throws -> Volume? {
        let candidates = try index.environment.read { try index.allVolumes(in: $0) }.filter { !$0.record.isSealed }
        for (id, _) in candidates.reversed() {
            guard let size = Platform.fileSize(path(of: id)), size > 0, size < bytesMax / 8 * 7,
                let lock = try FileLock(path: path(of: id)),
                // it may have been sealed between the look and the lock
                try index.environment.read({ try index.volume(id, in: $0) })?.isSealed == false
            else { continue }
            state.withLock { _ = $0.open.removeValue(forKey: id) }
            do {
                let volume = try Volume(id: id, path: path(of: id), storeID: storeID, bytesMax: bytesMax, mode: .writer)
                state.withLock { $0.locks[id] = lock }
                return volume
            } catch {
                continue  // damaged, or still open for reading in this process: leave it, another will do
            }
        }
        return nil
    }

    /// The record comes before the file, so that a file without a record is known to be nobody's.
    private func newVolume() throws -> Volume {
        let id = try index.environment.write { transaction in
            let id = try index.takeID(\.nextVolumeId, in: transaction)
            let record = VolumeRecord(
                state: VolumeRecord.activeState, liveBytes: 0, livePages: 0, writtenBytes: 0, writtenPages: 0,
                createdSeconds: Platform.unixSeconds(), sealedSeconds: 0)
            try index.putVolume(record, id: id, in: transaction)
            return id
        }
        do {
            try Volume.create(id: id, path: path(of: id), storeID: storeID, bytesMax: bytesMax)
            guard let lock = try FileLock(path: path(of: id)) else {
                throw StoreError(.conflict, "another process took the new volume \(Self.fileName(of: id))")
            }
            let volume = try Volume(id: id, path: path(of: id), storeID: storeID, bytesMax: bytesMax, mode: .writer)
            state.withLock { $0.locks[id] = lock }
            return volume
        } catch {
            try? Platform.remove(path(of: id))
            try? Platform.remove(path(of: id) + "-lock")
            try? index.environment.write { _ = try index.volumes.delete(id, in: $0) }
            throw error
        }
    }

    /// Seals the active volume, which has no room for the next image of `lacking` bytes.
    private func sealActive(_ volume: Volume, lacking: Int) throws {
        guard try !volume.isEmpty else {
            throw StoreError(
                .noSpace,
                "a page image of \(lacking) bytes does not fit an empty volume of \(bytesMax) bytes: create the store with larger volumes"
            )
        }
        try index.environment.write { transaction in
            try index.updateVolume(volume.id, in: transaction) {
                $0.state = VolumeRecord.sealedState
                $0.sealedSeconds = Platform.unixSeconds()
            }
        }
        state.withLock { state in
            state.active = nil
            if state.unpublished[volume.id] == nil { state.locks[volume.id] = nil }
        }
    }

    // MARK: - Removing

    /// Removes sealed volumes in which nothing lives any more, and files that no record knows: a crash can leave such. A volume whose
    /// writer has yet to publish what it appended stays.
    func removeDead() throws {
        // The files first: one that a writer makes after this has its record by then.
        let files = try Platform.list(folder).filter { $0.hasSuffix(".mdb") }
        let records = try index.environment.read { try index.allVolumes(in: $0) }
        let known = Set(records.map { Self.fileName(of: $0.id) })
        for file in files where !known.contains(file) {
            guard let lock = try FileLock(path: folder + "/" + file) else { continue }
            try Platform.remove(folder + "/" + file)
            try Platform.remove(folder + "/" + file + "-lock")
            withExtendedLifetime(lock) {}
        }
        for (id, record) in records where record.isSealed && record.livePages == 0 {
            let lock = Platform.exists(path(of: id)) ? try FileLock(path: path(of: id)) : nil
            guard lock != nil || !Platform.exists(path(of: id)) else { continue }
            let removed = try index.environment.write { transaction in
                guard try index.volume(id, in: transaction)?.livePages == 0 else { return false }
                return try index.volumes.delete(id, in: transaction)
            }
            guard removed else { continue }
            state.withLock { _ = $0.open.removeValue(forKey: id) }
            try Platform.remove(path(of: id))
            try Platform.remove(path(of: id) + "-lock")
            withExtendedLifetime(lock) {}
        }
    }
}

extension VolumeRecord {
    static let activeState: UInt8 = 0
    static let sealedState: UInt8 = 1

    var isSealed: Bool { state == Self.sealedState }
}
