import KVCodec
import LMDB

extension Store {
    /// Mends what ``verify(depth:quarantining:progress:)`` finds: quarantines damaged pages, and writes the index anew without the records that
    /// cannot be right, with all counts computed again. Other processes may go on; those that write wait for it.
    ///
    /// At any moment it may be killed: the store is then what it was, or what it is to be, and another run goes on.
    ///
    /// - Parameters:
    ///   - depth: how much of the pages is looked at.
    ///   - isDryRun: whether only to tell what would be done.
    ///   - progress: called with the pages checked so far and all of them.
    /// - Returns: all that was found, every record that was dropped or changed, and what is still wrong.
    /// - Throws: `StoreError` with the codes `keyRequired` while the key of an encrypted tenant is not given, `inUse` while another repair
    ///   or a compaction runs, `readOnly`, `noSpace`, `inputOutput`.
    public func repair(
        depth: VerificationDepth = .tensors, isDryRun: Bool = false, progress: ((_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> RepairReport {
        if !isDryRun { try checkWritable() }
        try checkUnlocked()
        let lock = try isDryRun ? nil : Self.lockForRepair(folder)
        defer { withExtendedLifetime(lock) {} }
        let check = try checkedAll(depth: depth, progress: progress)
        var report = RepairReport()
        report.found = check.index.report
        report.changes = check.damaged.map {
            VerificationProblem(kind: .page, subject: $0.hash.hex, message: "quarantined: it counts as not stored")
        }
        let isIndexFaulty = check.index.report.problems.contains { $0.kind != .page }
        if isDryRun {
            if isIndexFaulty { report.add(try plan().outcome) }
            report.left = report.found.problems
            return report
        }
        try quarantine(check.damaged)
        if isIndexFaulty {
            try writeAnew(into: &report)
            // pages that could not be looked at before
            if check.skipped > 0, depth != .index {
                let again = try checkedAll(depth: depth)
                try quarantine(again.damaged)
                report.found.problems += again.index.report.problems.filter { $0.kind == .page }
            }
        }
        report.left = try checkedAll(depth: .index).index.report.problems
        return report
    }

    static func lockForRepair(_ folder: String) throws -> FileLock {
        guard let lock = try FileLock(path: folder + "/" + compactionLockName) else {
            throw StoreError(.inUse, "another process is compacting or repairing the store \(folder): let it finish")
        }
        return lock
    }

    private func imageSource() throws -> ImageSource {
        let known = try? read { try index.storeRecord(in: $0) }
        guard let record = known ?? (try? Identity(in: folder))?.store else {
            throw StoreError(
                .damaged, "neither the index nor the file '\(Identity.fileName)' tells which store this is")
        }
        return ImageSource(folder: folder, store: record, of: self, keys: index.keyRing)
    }

    private func plan() throws -> RepairPlan {
        let images = try imageSource()
        return try readWithIdentity { identity, transaction in
            try checkUnlocked(in: transaction)
            let check = IndexCheck(index, pageTokens: pageTokens, identity: identity, in: transaction)
            return try RepairPlan(check, images: images, isTakingAll: false, in: transaction)
        }
    }

    /// Has a new index succeed the one that is there.
    private func writeAnew(into report: inout RepairReport) throws {
        let images = try imageSource()
        let record = images.store
        var outcome: RepairPlan.Outcome?
        try StoreError.translating {
            try index.environment.succeed { path in
                // nobody changes it meanwhile
                let identity = try? Identity(in: folder)
                try index.environment.read { transaction in
                    // another process may have given one another key since this began
                    try checkUnlocked(in: transaction)
                    let check = IndexCheck(index, pageTokens: pageTokens, identity: identity, in: transaction)
                    let made = try RepairPlan(check, images: images, isTakingAll: false, in: transaction)
                    let new = try Index(
                        at: path, readOnly: false, creating: true, isScratch: true, isAlone: true, keyRing: index.keyRing)
                    var writer = RepairWriter(made, to: new, images: images, identity: identity)
                    try writer.write(former: index, store: record, in: transaction)
                    outcome = made.outcome
                }
            }
        }
        if let outcome {
            report.add(outcome)
            try images.keepDamaged(besides: outcome.readableVolumes)
        }
        try write { try saveIdentity(in: $0) }
    }
}

extension RepairReport {
    fileprivate mutating func add(_ outcome: RepairPlan.Outcome) {
        changes += outcome.changes
        nodesRecovered += outcome.nodesRecovered
    }
}

extension RepairPlan {
    /// What is told of a plan. It holds no file open.
    struct Outcome {
        var changes: [VerificationProblem]
        var nodesRecovered: Int
        var readableVolumes: Set<UInt64>
    }

    var outcome: Outcome {
        Outcome(changes: changes, nodesRecovered: recovered.count, readableVolumes: readableVolumes)
    }
}

// MARK: - A lost index

extension Store {
    /// Makes the index of a store that does not open any more anew: from the file `identity`, from what can be read of the index, and from
    /// the page images in the volumes. No other process may have the store open.
    ///
    /// What is lost with an index that cannot be read are names, frames, turns, engine state, pins and use counts. Pages are found by their
    /// tokens, as before; those that had been deleted and not yet compacted away are back. An index file that is there is kept, as
    /// `index.mdb.damaged-<time>`.
    ///
    /// - Parameter keys: of all encrypted tenants, by name.
    /// - Returns: what was made anew, and what is still wrong.
    /// - Throws: `StoreError` with the codes `keyRequired`, `wrongKey`, `notAStore`, `damaged` where the file `identity` cannot be read either, `invalidArgument` for a
    ///   store that opens, `newerFormat`, `inUse`, `noSpace`, `inputOutput`.
    public static func rebuild(at path: String, keys: [String: EncryptionKey] = [:]) throws -> RepairReport {
        guard let folder = Platform.absolute(path), Platform.isDirectory(folder) else {
            throw StoreError(.notAStore, "\(path) is no folder")
        }
        guard isRebuildable(folder) else {
            throw StoreError(.notAStore, "\(path) holds no ReelKV store, nor what is left of one")
        }
        try StoreCore.refuseLinks(in: folder)
        try checkUnreadable(path)
        let lock = try lockForRepair(folder)
        defer { withExtendedLifetime(lock) {} }
        var report = RepairReport()
        report.add(try StoreError.translating { try replaceIndex(in: folder, keys: keys) })
        report.isRebuilt = true
        let store = try Store(opening: path)
        for (tenant, key) in keys { try store.unlock(tenant: tenant, with: key) }
        try store.write { try store.saveIdentity(in: $0) }
        report.left = try store.checkedAll(depth: .index).index.report.problems
        return report
    }

    /// Whether a folder that does not open looks like a store that has lost its index.
    public static func isRebuildable(_ path: String) -> Bool {
        Platform.exists(path + "/" + Identity.fileName) || Platform.isDirectory(path + "/" + VolumeSet.folderName)
    }

    /// - Throws: for an index that can be read, and for one that a newer version wrote.
    private static func checkUnreadable(_ path: String) throws {
        do { _ = try Store(opening: path, access: .readOnly) } catch let error as StoreError {
            guard error.code == .notAStore || error.code == .damaged else { throw error }
            return
        }
        throw StoreError(.invalidArgument, "the index of \(path) can be read: repair the store instead of rebuilding it")
    }

    private static func replaceIndex(in folder: String, keys: [String: EncryptionKey]) throws -> RepairPlan.Outcome {
        let identity = try Identity(forRebuilding: folder)
        let ring = KeyRing()
        for tenant in identity.tenants where tenant.isEncrypted {
            guard let key = keys[tenant.name] else { throw Index.noKey("tenant '\(tenant.name)'") }
            ring.add(try tenant.keys(opening: key))
        }
        let images = ImageSource(folder: folder, store: identity.store, of: nil, keys: ring)
        let outcome = try IndexFiles.replace(in: folder) { path in
            try makeIndex(at: path, former: try IndexFiles.former(in: folder, keyRing: ring), identity, images, ring)
        }
        try images.keepDamaged(besides: outcome.readableVolumes)
        return outcome
    }

    private static func makeIndex(
        at path: String, former: Index?, _ identity: Identity, _ images: ImageSource, _ ring: KeyRing
    ) throws -> RepairPlan.Outcome {
        let pageTokens = Int(identity.store.pageTokens)
        let new = try Index(
            at: path, readOnly: false, creating: true, isScratch: true, isAlone: true, keyRing: ring)
        // where nothing can be read, the new index, which is empty yet, says the same
        let source = former ?? new
        return try source.environment.read { transaction in
            let check = IndexCheck(source, pageTokens: pageTokens, identity: identity, in: transaction)
            let plan = try RepairPlan(check, images: images, isTakingAll: former == nil, in: transaction)
            var writer = RepairWriter(plan, to: new, images: images, identity: identity)
            try writer.write(former: former, store: identity.store, in: transaction)
            return plan.outcome
        }
    }
}

extension Identity {
    fileprivate init(forRebuilding folder: String) throws {
        do {
            try self.init(in: folder)
        } catch let error as StoreError where error.code == .damaged {
            throw StoreError(
                .damaged,
                "the index cannot be read, and \(error): without the tenants' salts no page can be found; put back a copy of '\(Self.fileName)' or of the index"
            )
        }
        let isPossible =
            (Index.formatVersion...Index.encryptedVersion).contains(store.formatVersion) && store.pageTokens > 0
            && store.pageTokens % 32 == 0
            && store.pageTokens <= TokenSequence.pageTokensMax && store.volumeBytesMax > 0
        guard isPossible else {
            throw StoreError(
                .newerFormat,
                "the file '\(Self.fileName)' is of format version \(store.formatVersion), this ReelKV writes \(Index.formatVersion)"
            )
        }
    }
}
