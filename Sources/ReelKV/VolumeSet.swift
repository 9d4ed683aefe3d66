import LMDB
import Locking

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
        /// When the open volumes' files were last looked for, in seconds of the system's own clock.
        var sweptSeconds: Int64 = 0
        var sealBytes: Int
    }

    private let folder: String
    private let index: Index
    private let storeID: UInt64
    let bytesMax: Int
    private let isReadOnly: Bool
    let durability: Store.Durability
    private let state: Mutex<State>
    /// Held while appending, so that one batch after another goes into the active volume.
    private let appending = Mutex(())

    /// Open volumes above this number are closed when nobody uses them: each holds a map and a file descriptor.
    private static let openMax = 256
    /// How many new volumes a writer enters before it gives up: another process may clear one away that has no file yet.
    private static let newVolumesMax = 16

    static let folderName = "volumes"

    init(folder: String, index: Index, record: StoreRecord, isReadOnly: Bool, durability: Store.Durability) {
        self.folder = folder
        self.index = index
        storeID = record.storeId
        bytesMax = Int(clamping: record.volumeBytesMax)
        self.isReadOnly = isReadOnly
        self.durability = durability
        state = Mutex(State(sealBytes: bytesMax))
    }

    /// Bytes of a file at which its volume is sealed, even if more would fit: space comes back in units of it. At most what a volume
    /// can hold, which is also what it is unless it is set.
    var sealBytes: Int {
        get { state.withLock { $0.sealBytes } }
        set { state.withLock { $0.sealBytes = min(max(1, newValue), bytesMax) } }
    }

    /// The volume that this process appends to.
    var activeID: UInt64? { state.withLock { $0.active?.id } }

    func path(of id: UInt64) -> String { "\(folder)/\(Self.fileName(of: id))" }

    static func fileName(of id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return String(repeating: "0", count: max(0, 8 - digits.count)) + digits + ".mdb"
    }

    /// nil for any name that `fileName` does not give.
    static func id(ofFile name: String) -> UInt64? {
        guard name.hasSuffix(".mdb"), let id = UInt64(name.dropLast(4), radix: 16), fileName(of: id) == name else { return nil }
        return id
    }

    // MARK: - Reading

    /// The open volume.
    /// - Throws: `StoreError.pageUnavailable` when the file is gone, or is not what it should be.
    func volume(_ id: UInt64) throws -> Volume {
        if let open = state.withLock({ $0.open[id] }) { return open }
        let record = try index.environment.read { try index.volume(id, in: $0) }
        try Platform.refuseLink(path(of: id))
        guard let record, Platform.exists(path(of: id)) else {
            throw StoreError(.pageUnavailable, "volume \(Self.fileName(of: id)) is gone; its pages count as not stored")
        }
        let mode: Volume.Mode = record.isSealed || isReadOnlyMedium ? .sealed : .shared
        do {
            return try state.withLock { state in
                if let open = state.open[id] { return open }
                let volume = try Volume(id: id, path: path(of: id), storeID: storeID, bytesMax: bytesMax, mode: mode)
                close(unusedOf: &state)
                state.open[id] = volume
                return volume
            }
        } catch let error as LMDBError where [.noSuchFile, .invalid, .corrupted].contains(error.code) {
            throw StoreError(.pageUnavailable, "\(error); its pages count as not stored")
        } catch let error as StoreError where error.code == .damaged {
            throw StoreError(.pageUnavailable, "\(error); its pages count as not stored")
        }
    }

    /// Closes volumes whose files were removed by another process, so that the disk gets their space back, and where too many are
    /// open all that nobody uses: a volume that somebody does use could not be opened again in another mode.
    private func close(unusedOf state: inout State) {
        let isFull = state.open.count >= Self.openMax
        for id in Array(state.open.keys) where isFull || !Platform.exists(path(of: id)) { closeUnlessUsed(id, in: &state) }
    }

    /// Closes volumes that nobody uses and whose files were removed by another process: until then the disk does not get their space
    /// back. It may be called often: it looks for the files once a second at most.
    func closeRemoved() {
        let open = state.withLock { state -> [UInt64] in
            let now = Platform.uptimeSeconds()
            guard now != state.sweptSeconds else { return [] }
            state.sweptSeconds = now
            return Array(state.open.keys)
        }
        let removed = open.filter { !Platform.exists(path(of: $0)) }
        if removed.isEmpty { return }
        state.withLock { state in
            for id in removed { closeUnlessUsed(id, in: &state) }
        }
    }

    private func closeUnlessUsed(_ id: UInt64, in state: inout State) {
        guard var volume = state.open.removeValue(forKey: id) else { return }
        if volume === state.active || !isKnownUniquelyReferenced(&volume) { state.open[id] = volume }
    }

    /// Where no lock file can be made, nobody can be writing either.
    private var isReadOnlyMedium: Bool { isReadOnly && !Platform.isWritable(folder) }

    // MARK: - Appending

    /// Appends page images to this process's volume; they are on the disk when this returns, if this process is durable. Their volumes
    /// are kept until the caller says by `settle` that nodes refer to them, or that none ever will.
    ///
    /// - Parameter replacesOthers: whether the images take the place of others, which must not go before these are on the disk, even
    ///   where this process is relaxed.
    func append(_ images: [some PageBytes], replacesOthers: Bool = false) throws -> [Location] {
        defer { closeRemoved() }
        return try appending.withLock { _ in
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
                    FaultPoint.reached("images appended")
                    if replacesOthers, durability == .relaxed { try volume.sync() }
                    state.withLock { $0.unpublished[volume.id, default: 0] += pages.count }
                    locations += pages.map { Location(volume: volume.id, page: $0) }
                    rest = rest.dropFirst(batch.count)
                    if Platform.fileSize(path(of: volume.id)) ?? 0 >= sealBytes { try retireActive(volume) }
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

    /// Brings what was appended to the disk.
    func sync() throws {
        try state.withLock { $0.active }?.sync()
    }

    private func activeVolume() throws -> Volume {
        if let active = state.withLock({ $0.active }) { return active }
        let candidates = try index.environment.read { try index.allVolumes(in: $0) }.filter { !$0.record.isSealed }
        for (id, _) in candidates.reversed() {
            if let volume = try takeOver(id) { return volume }
        }
        // Also what a crash left behind, now and then.
        try? removeDead()
        for _ in 0..<Self.newVolumesMax {
            if let volume = try takeOver(try enterVolume()) { return volume }
        }
        throw StoreError(.conflict, "other processes took every new volume of \(folder): try again")
    }

    /// Enters a new volume into the index. The record comes before the file, so that a file without a record is known to be nobody's.
    private func enterVolume() throws -> UInt64 {
        try index.environment.write { transaction in
            let id = try index.takeID(\.nextVolumeId, in: transaction)
            let record = VolumeRecord(
                state: VolumeRecord.activeState, liveBytes: 0, livePages: 0, writtenBytes: 0, writtenPages: 0,
                createdSeconds: Platform.unixSeconds(), sealedSeconds: 0)
            try index.putVolume(record, id: id, in: transaction)
            return id
        }
    }

    /// Makes an active volume that nobody owns this process's own: a new one, or one whose writer has ended. One without room for
    /// more is sealed, so that it can go when its pages do.
    ///
    /// - Returns: nil when another process owns it or has removed it, and when it cannot be written.
    private func takeOver(_ id: UInt64) throws -> Volume? {
        let path = path(of: id)
        guard let lock = try FileLock(path: path) else { return nil }
        defer { withExtendedLifetime(lock) {} }
        let size = Platform.fileSize(path) ?? 0
        // what was known before the lock was held may be out of date
        let record = try index.environment.read { try index.volume(id, in: $0) }
        let isLost = size == 0 && record.map { $0.writtenPages > 0 || $0.livePages > 0 } ?? true
        if isLost { try removeFiles(path) }
        guard let record, !record.isSealed else { return nil }
        if isLost || size >= min(bytesMax / 8 * 7, sealBytes) {
            try seal(id)
            return nil
        }
        do {
            return try state.withLock { state in
                closeUnlessUsed(id, in: &state)
                // one that is being read stays known as it is: were it opened a second time, it could be in another mode
                if state.open[id] != nil { return nil }
                let volume = try Volume(
                    id: id, path: path, storeID: storeID, bytesMax: bytesMax, mode: .writer, durability: durability)
                state.open[id] = volume
                state.active = volume
                state.locks[id] = lock
                return volume
            }
        } catch {
            // damaged: leave it, another will do
            if size > 0 { return nil }
            try? index.environment.write { _ = try index.volumes.delete(id, in: $0) }
            try? removeFiles(path)
            throw error
        }
    }

    private func seal(_ id: UInt64) throws {
        try index.environment.write { transaction in
            try index.updateVolume(id, in: transaction) {
                $0.state = VolumeRecord.sealedState
                $0.sealedSeconds = Platform.unixSeconds()
            }
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
        try retireActive(volume)
    }

    /// Seals the active volume. Its lock stays until what was appended to it is published.
    private func retireActive(_ volume: Volume) throws {
        if durability == .relaxed { try volume.sync() }
        FaultPoint.reached("sealing")
        try seal(volume.id)
        state.withLock { state in
            state.active = nil
            if state.unpublished[volume.id] == nil { state.locks[volume.id] = nil }
        }
    }

    // MARK: - Removing

    /// Removes volumes in which nothing lives any more, and files that no record knows: a crash can leave such. A volume that has an
    /// owner stays, for what it appended and has yet to publish.
    func removeDead() throws {
        // The files first: one that a writer makes after this has its record by then.
        let files = try Platform.list(folder)
        let records = try index.environment.read { try index.allVolumes(in: $0) }
        let known = Set(records.map { Self.fileName(of: $0.id) })
        for file in files {
            let name = file.hasSuffix("-lock") ? String(file.dropLast(5)) : file
            guard name.hasSuffix(".mdb"), !known.contains(name) else { continue }
            guard let lock = try FileLock(path: folder + "/" + name) else { continue }
            try removeFiles(folder + "/" + name)
            withExtendedLifetime(lock) {}
        }
        for (id, record) in records where record.livePages == 0 { try removeIfDead(id) }
    }

    private func removeIfDead(_ id: UInt64) throws {
        guard let lock = try FileLock(path: path(of: id)) else { return }
        _ = try removeIfDead(id, holding: lock)
    }

    /// Removes a volume whose lock the caller holds, its record first.
    ///
    /// - Parameter isCompacted: whether compaction emptied it, which is counted.
    /// - Returns: the bytes of its files; nil when something lives in it.
    func removeIfDead(_ id: UInt64, holding lock: FileLock, isCompacted: Bool = false) throws -> Int? {
        defer { withExtendedLifetime(lock) {} }
        let isDead = try index.environment.write { transaction in
            guard try index.volume(id, in: transaction)?.livePages ?? 0 == 0 else { return false }
            _ = try index.volumes.delete(id, in: transaction)
            if isCompacted { try index.updateCounters(in: transaction) { $0.compactedVolumes &+= 1 } }
            return true
        }
        guard isDead else { return nil }
        // Were the record there again after a crash, its pages would be lost: those that another process moved elsewhere, too.
        if durability == .relaxed { try index.environment.sync() }
        let bytes = fileBytes(of: id)
        state.withLock { _ = $0.open.removeValue(forKey: id) }
        try removeFiles(path(of: id))
        return bytes
    }

    /// Bytes of a volume's files.
    private func fileBytes(of id: UInt64) -> Int {
        (Platform.fileSize(path(of: id)) ?? 0) + (Platform.fileSize(path(of: id) + "-lock") ?? 0)
    }

    // MARK: - Compaction

    /// Takes a volume out of use, for its images to be copied elsewhere: from now on nobody appends to it or publishes what lies in it.
    ///
    /// - Returns: its lock; nil when another process owns it, when this one has yet to publish images in it, and when it is gone.
    func retire(_ id: UInt64) throws -> FileLock? {
        try appending.withLock { _ in
            if let active = state.withLock({ $0.active }), active.id == id { try retireActive(active) }
        }
        let path = path(of: id)
        guard let lock = try FileLock(path: path) else { return nil }
        // what was known before the lock was held may be out of date
        let record = try index.environment.read { try index.volume(id, in: $0) }
        guard let record, Platform.fileSize(path) ?? 0 > 0 else {
            // taking the lock has made an empty file; a new volume's will be its writer's
            if record?.writtenPages ?? 1 > 0 { try removeFiles(path) }
            return nil
        }
        if !record.isSealed { try seal(id) }
        return lock
    }

    private func removeFiles(_ path: String) throws {
        FaultPoint.reached("volume forgotten")
        try Platform.remove(path)
        FaultPoint.reached("volume removed")
        try Platform.remove(path + "-lock")
    }
}
