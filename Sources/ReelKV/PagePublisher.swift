import KVCodec
import LMDB

/// Makes a writer's pages durable and moves its head: images into the volumes first, then the nodes and the head in one
/// transaction of the index. A crash between the two leaves bytes that nothing refers to, never a node without its page.
///
/// One batch of pages waits for the disk on another thread while the next one gathers; who adds more waits. `head`, `building` and
/// `newNodes` belong to that thread until `background` has been waited for.
///
/// Does not know tensors or how pages are made.
final class PagePublisher {
    private struct Pending {
        var hash: Digest
        /// The node and its image; nil for a page that was stored already.
        var new: (node: Node, image: EncodedPage)?
        var end: Int
        var tokenCount: Int
    }

    /// What is published together.
    private struct Batch {
        var pages: [Pending] = []
        var byteCount = 0
        /// Keeps the last stored page that the pages stand behind from being evicted until the writer's own head holds it.
        var lease: Lease?
    }

    let modelID: UInt32
    let tenantID: UInt32
    private let store: Store
    private let name: SequenceName
    private let headKey: HeadKey
    private let modelName: String
    private let start: StoredPrefix
    private let expectedHead: Head?
    private let isReplacing: Bool
    /// The sequence as far as it is durable.
    private var head: Head
    /// Where the index holds `head`; nil before the first flush: what is appended in one go needs no head of its own.
    private var building: BuildingKey?
    private var pending = Batch()
    private let background = BackgroundWork()
    /// What was published and was not stored before.
    private var newNodes: [EvictionMemory.PathNode] = []
    /// Published together: a commit waits for the disk, so a few pages share one.
    private static let pendingPagesMax = 16
    private static let pendingBytesMax = 32 << 20
    static let engineStateBytesMax = 64 << 20

    init(
        store: Store, name: SequenceName, tenant: StoredTenant, model: StoredModel, start: StoredPrefix, profile: Profile,
        expectedHead: Head?, isReplacing: Bool
    ) throws {
        self.store = store
        self.name = name
        self.start = start
        self.expectedHead = expectedHead
        self.isReplacing = isReplacing
        modelID = model.id
        tenantID = tenant.id
        modelName = model.spec.name
        let now = Platform.unixSeconds()
        let process = Platform.processID
        head = Head(
            record: HeadRecord(
                tip: start.tip, root: start.root, tokenCount: UInt64(start.tokenCount), tipEnd: UInt32(start.tipEnd),
                modelId: model.id, tenantId: tenant.id, profileId: profile.id, kind: name.kind.rawValue, flags: 0, frameCount: 0,
                turnCount: 0, provenanceBytes: 0, writerProcess: process, createdSeconds: now, updatedSeconds: now,
                writerStarted: Platform.processStart(process) ?? 0))
        headKey = HeadKey(tenant: tenant.id, name: name.name)
        do {
            pending.lease = try store.lease(start)
        } catch let error as StoreError where error.code != .pageUnavailable {
            // Without a lease the write goes on, and notices when it is published that pages are gone.
        }
    }

    // MARK: - Pages

    /// Takes a new page or piece; it is durable after the next `flush`.
    func add(_ node: Node, hash: Digest, image: EncodedPage, tokenCount: Int) throws {
        pending.pages.append(Pending(hash: hash, new: (node, image), end: Int(node.record.end), tokenCount: tokenCount))
        pending.byteCount += image.count
        if pending.pages.count >= Self.pendingPagesMax || pending.byteCount >= Self.pendingBytesMax { try beginFlush() }
    }

    /// Takes a page or piece that is stored already.
    ///
    /// - Parameter lease: taken before it was looked up.
    func adopt(_ hash: Digest, end: Int, tokenCount: Int, lease: Lease?) throws {
        pending.lease = lease ?? pending.lease
        pending.pages.append(Pending(hash: hash, new: nil, end: end, tokenCount: tokenCount))
        if pending.pages.count >= Self.pendingPagesMax { try beginFlush() }
    }

    /// Makes what was added durable, and holds it by the writer's own head.
    func flush() throws {
        try beginFlush()
        try background.wait()
    }

    /// Begins to make what was added durable, once what was added before is.
    private func beginFlush() throws {
        guard !pending.pages.isEmpty else { return }
        let batch = pending
        try background.begin {
            try self.publish(batch) { moved, _, transaction in
                let key =
                    try self.building
                    ?? BuildingKey(writer: self.store.index.takeID(\.nextWriterId, in: transaction), head: self.headKey)
                try self.store.index.moveBuilding(key, to: moved, in: transaction)
                return key
            }
        }
        pending = Batch()
    }

    /// Puts a batch's images into the volumes, then, in one transaction of the index, publishes their nodes and lets `moveHead` refer
    /// to the last of them.
    private func publish(
        _ batch: Batch, stateBytes: Int = 0,
        _ moveHead: (_ moved: Head, _ newNodes: Int, borrowing WriteTransaction) throws -> BuildingKey?
    ) throws {
        defer { withExtendedLifetime(batch.lease) {} }
        let new = batch.pages.compactMap { page in page.new.map { (hash: page.hash, node: $0.node, image: $0.image) } }
        let locations = try store.append(
            new.map(\.image), ofTenant: tenantID, named: name.tenant, indexBytes: stateBytes,
            replacesOthers: try replacesOthers(new.map { ($0.hash, $0.node.encodings[0].profileId) }))
        defer { store.volumes.settle(locations) }
        var moved = head
        if let last = batch.pages.last {
            moved.record.tip = last.hash
            moved.record.tipEnd = UInt32(last.end)
            moved.record.tokenCount = UInt64(last.tokenCount)
        }
        moved.record.updatedSeconds = Platform.unixSeconds()
        let (key, published) = try store.writeWithUses { transaction in
            try checkOwners(in: transaction)
            for page in new { try checkSealed(page.node.encodings[0].keyEpoch, in: transaction) }
            let access = try store.index.counters(in: transaction).accesses
            var published: [EvictionMemory.PathNode] = []
            var bytes: UInt64 = 0
            for ((hash, node, image), location) in zip(new, locations) {
                var node = node
                node.record.createdAccess = access
                node.encodings[0].volumeId = location.volume
                node.encodings[0].pageId = location.page
                if try store.index.publish(node, hash: hash, in: transaction).isNew {
                    published.append(EvictionMemory.PathNode(hash: hash, isTail: node.kind == .piece))
                    if let memory = store.index.evictionMemory.memory(of: hash) {
                        try store.index.remember(memory, of: hash, in: transaction)
                    }
                }
                bytes += UInt64(image.count)
            }
            try store.index.updateCounters(in: transaction) { $0.appendedBytes += bytes }
            return (try moveHead(moved, newNodes.count + published.count, transaction), published)
        }
        newNodes += published
        head = moved
        building = key
    }

    /// Whether an image takes the place of one that may be on the disk already: then a crash of the machine must not lose both. That
    /// concerns relaxed writers only.
    private func replacesOthers(_ images: [(hash: Digest, profile: UInt16)]) throws -> Bool {
        guard store.durability == .relaxed else { return false }
        return try store.read { transaction in
            try images.contains { image in
                try store.index.node(image.hash, in: transaction)?.encodings.contains {
                    $0.profileId == image.profile && !$0.isQuarantined
                } ?? false
            }
        }
    }

    /// A model or tenant may have been removed since the write began, and even made anew, with another id.
    private func checkOwners(in transaction: borrowing WriteTransaction) throws {
        guard try store.index.model(named: modelName, in: transaction)?.id == modelID,
            try store.index.tenant(named: name.tenant, in: transaction)?.id == tenantID
        else {
            throw StoreError(.conflict, "the model '\(modelName)' or the tenant '\(name.tenant)' was removed during the write")
        }
        _ = try store.index.sealingKeys(of: tenantID, in: transaction)
    }

    /// What a page was sealed with must still be the data key in effect: an earlier one may be gone.
    private func checkSealed(_ epoch: UInt32, in transaction: borrowing WriteTransaction) throws {
        guard try store.index.isSealedInEffect(epoch, of: tenantID, in: transaction) else {
            throw StoreError(
                .conflict, "tenant '\(name.tenant)' was given another key while \(name) was being written: write it again")
        }
    }

    // MARK: - The end

    /// Publishes the head under its name.
    ///
    /// - Parameter isPinned: whether its pages are kept from being evicted; nil for as it was, and for a new video to be.
    func finish(
        engineState: [UInt8]?, frames: [VideoFrame], provenance: Provenance, isPinned: Bool?
    ) throws {
        guard engineState?.count ?? 0 <= Self.engineStateBytesMax else {
            throw StoreError(.invalidArgument, "engine state has at most \(Self.engineStateBytesMax) bytes")
        }
        var access: UInt64?
        try background.wait()
        defer { pending = Batch() }
        try publish(pending, stateBytes: engineState?.count ?? 0) { moved, newNodes, transaction in
            let previous = try store.index.head(name.kind, headKey, in: transaction)
            try checkUnchanged(previous, tip: moved)
            if let engineState { try keep(engineState, after: moved, in: transaction) }
            var finished = try finish(moved, after: previous, frames: frames, provenance: provenance)
            finished.record.isPinned = isPinned ?? previous?.record.isPinned ?? (name.kind == .video)
            try store.index.replaceHead(name.kind, headKey, with: finished, in: transaction)
            if let building { try store.index.moveBuilding(building, to: nil, in: transaction) }
            try store.index.remove(try store.index.abandoned(name.kind, headKey, in: transaction), in: transaction)
            // a sequence that was stored already was counted when it was looked up
            if newNodes > 0, !moved.isEmpty {
                access = try store.index.countAccess(at: moved.record.tip, together: newNodes, in: transaction)
            }
            return nil
        }
        if let access { store.index.evictionMemory.note(stored: newNodes, after: start.path, access: access) }
        // The write is done, whether or not the space of what it replaced comes back now.
        if isReplacing { try? store.removeDeadVolumes() }
    }

    private func checkUnchanged(_ previous: Head?, tip: Head) throws {
        switch name.kind {
        case .session:
            // whether it is pinned is none of a writer's business
            guard previous?.record.tip == expectedHead?.record.tip, previous?.record.tipEnd == expectedHead?.record.tipEnd,
                previous?.record.tokenCount == expectedHead?.record.tokenCount
            else {
                throw StoreError(
                    .conflict,
                    "another writer changed session '\(name.name)' meanwhile: open it again and append to what is there now")
            }
        case .video:
            guard let previous, !isReplacing else { return }
            guard previous.record.tip == tip.record.tip, previous.record.tipEnd == tip.record.tipEnd else {
                throw StoreError(
                    .alreadyExists,
                    "a video '\(name.name)' with other content exists: choose another name, remove it, or replace it")
            }
        }
    }

    private func keep(
        _ engineState: [UInt8], after head: Head, in transaction: borrowing WriteTransaction
    ) throws {
        guard !head.isEmpty, let tip = try store.index.node(head.record.tip, in: transaction),
            tip.record.end == head.record.tipEnd
        else {
            throw StoreError(.invalidArgument, "engine state can only be kept after tokens that were appended")
        }
        try store.index.putState(engineState, after: head.record.tip, in: transaction)
    }

    /// The head as it stands under its name.
    private func finish(
        _ head: Head, after previous: Head?, frames: [VideoFrame], provenance: Provenance
    ) throws -> Head {
        var finished = head
        finished.record.writerProcess = 0
        finished.record.writerStarted = 0
        finished.record.createdSeconds = previous?.record.createdSeconds ?? head.record.createdSeconds
        finished.record.updatedSeconds = Platform.unixSeconds()
        finished.provenance = Provenance((previous?.provenance.entries ?? [:]).merging(provenance.entries) { _, new in new })
        guard finished.provenance.byteCount <= Provenance.byteCountMax else {
            throw StoreError(.invalidArgument, "provenance has at most \(Provenance.byteCountMax) bytes of keys and values")
        }
        switch name.kind {
        case .video:
            finished.frames = frames
        case .session:
            finished.turns = previous?.turns ?? []
            if Int(head.record.tokenCount) > start.tokenCount {
                finished.turns.append(
                    SessionTurn(firstToken: start.tokenCount, appendedSeconds: finished.record.updatedSeconds))
            }
        }
        return finished
    }

    /// Lets go of the unfinished head without deleting anything: a later write of the name finds its pages, and then removes it.
    func release() {
        pending = Batch()
        try? background.wait()
        guard let building else { return }
        var orphan = head
        orphan.record.writerProcess = 0
        orphan.record.writerStarted = 0
        // Best effort: a head that cannot be changed now counts as abandoned once this process has ended.
        try? store.write { try store.index.moveBuilding(building, to: orphan, in: $0) }
    }

    /// Removes the unfinished head, and the pages that nothing else shares.
    func remove() {
        pending = Batch()
        try? background.wait()
        guard let building else { return }
        try? store.write { try store.index.moveBuilding(building, to: nil, in: $0) }
        try? store.removeDeadVolumes()
    }
}
