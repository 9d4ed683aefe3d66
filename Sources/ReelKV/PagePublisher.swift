import KVCodec
import LMDB

/// Makes a writer's pages durable and moves its head: images into the volumes first, then the nodes and the head in one
/// transaction of the index. A crash between the two leaves bytes that nothing refers to, never a node without its page.
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

    let modelID: UInt32
    let tenantID: UInt32
    private let store: Store
    private let name: SequenceName
    private let key: BuildingKey
    private let start: StoredPrefix
    private let expectedHead: Head?
    private let isReplacing: Bool
    /// The head as the index holds it.
    private var head: Head
    private var pending: [Pending] = []
    private var pendingBytes = 0

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
        let now = Platform.unixSeconds()
        let process = Platform.processID
        head = Head(
            record: HeadRecord(
                tip: start.tip, root: start.root, tokenCount: UInt64(start.tokenCount), tipEnd: UInt32(start.tipEnd),
                modelId: model.id, tenantId: tenant.id, profileId: profile.id, kind: name.kind.rawValue, frameCount: 0,
                turnCount: 0, provenanceBytes: 0, writerProcess: process, createdSeconds: now, updatedSeconds: now,
                writerStarted: Platform.processStart(process) ?? 0))
        let headKey = HeadKey(tenant: tenant.id, name: name.name)
        key = try store.write { [head] transaction in
            let key = BuildingKey(writer: try store.index.takeID(\.nextWriterId, in: transaction), head: headKey)
            try store.index.moveBuilding(key, to: head, in: transaction)
            return key
        }
    }

    // MARK: - Pages

    /// Takes a new page or piece; it is durable after the next `flush`.
    func add(_ node: Node, hash: Digest, image: EncodedPage, tokenCount: Int) throws {
        pending.append(Pending(hash: hash, new: (node, image), end: Int(node.record.end), tokenCount: tokenCount))
        pendingBytes += image.count
        if pending.count >= Self.pendingPagesMax || pendingBytes >= Self.pendingBytesMax { try flush() }
    }

    /// Takes a page or piece that is stored already.
    func adopt(_ hash: Digest, end: Int, tokenCount: Int) throws {
        pending.append(Pending(hash: hash, new: nil, end: end, tokenCount: tokenCount))
        if pending.count >= Self.pendingPagesMax { try flush() }
    }

    func flush() throws {
        guard let last = pending.last else { return }
        let new = pending.compactMap { page in page.new.map { (hash: page.hash, node: $0.node, image: $0.image) } }
        let locations = try StoreError.translating { try store.volumes.append(new.map(\.image)) }
        defer { store.volumes.settle(locations) }
        var moved = head
        moved.record.tip = last.hash
        moved.record.tipEnd = UInt32(last.end)
        moved.record.tokenCount = UInt64(last.tokenCount)
        moved.record.updatedSeconds = Platform.unixSeconds()
        try store.write { transaction in
            for ((hash, node, _), location) in zip(new, locations) {
                var node = node
                node.encodings[0].volumeId = location.volume
                node.encodings[0].pageId = location.page
                _ = try store.index.publish(node, hash: hash, in: transaction)
            }
            try store.index.moveBuilding(key, to: moved, in: transaction)
        }
        head = moved
        pending = []
        pendingBytes = 0
    }

    // MARK: - The end

    /// Publishes the head under its name.
    func finish(engineState: [UInt8]?, frames: [VideoFrame], provenance: Provenance) throws {
        guard engineState?.count ?? 0 <= Self.engineStateBytesMax else {
            throw StoreError(.invalidArgument, "engine state has at most \(Self.engineStateBytesMax) bytes")
        }
        try flush()
        try store.write { transaction in
            let headKey = key.head
            let previous = try store.index.head(name.kind, headKey, in: transaction)
            try checkUnchanged(previous)
            if let engineState { try keep(engineState, in: transaction) }
            let finished = finishedHead(after: previous, frames: frames, provenance: provenance)
            try store.index.replaceHead(name.kind, headKey, with: finished, in: transaction)
            try store.index.moveBuilding(key, to: nil, in: transaction)
            try store.index.remove(try store.index.abandoned(name.kind, headKey, in: transaction), in: transaction)
        }
    }

    private func checkUnchanged(_ previous: Head?) throws {
        switch name.kind {
        case .session:
            guard previous == expectedHead else {
                throw StoreError(
                    .conflict,
                    "another writer changed session '\(name.name)' meanwhile: open it again and append to what is there now")
            }
        case .video:
            guard let previous, !isReplacing else { return }
            guard previous.record.tip == head.record.tip, previous.record.tipEnd == head.record.tipEnd else {
                throw StoreError(
                    .alreadyExists,
                    "a video '\(name.name)' with other content exists: choose another name, remove it, or replace it")
            }
        }
    }

    private func keep(_ engineState: [UInt8], in transaction: borrowing WriteTransaction) throws {
        guard !head.isEmpty, let tip = try store.index.node(head.record.tip, in: transaction),
            tip.record.end == head.record.tipEnd
        else {
            throw StoreError(.invalidArgument, "engine state can only be kept after tokens that were appended")
        }
        try store.index.states.put(head.record.tip, engineState, in: transaction)
    }

    private func finishedHead(after previous: Head?, frames: [VideoFrame], provenance: Provenance) -> Head {
        var finished = head
        finished.record.writerProcess = 0
        finished.record.writerStarted = 0
        finished.record.createdSeconds = previous?.record.createdSeconds ?? head.record.createdSeconds
        finished.record.updatedSeconds = Platform.unixSeconds()
        finished.provenance = Provenance((previous?.provenance.entries ?? [:]).merging(provenance.entries) { _, new in new })
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
        var orphan = head
        orphan.record.writerProcess = 0
        orphan.record.writerStarted = 0
        // Best effort: a head that cannot be changed now counts as abandoned once this process has ended.
        try? store.write { try store.index.moveBuilding(key, to: orphan, in: $0) }
    }

    /// Removes the unfinished head, and the pages that nothing else shares.
    func remove() {
        try? store.write { try store.index.moveBuilding(key, to: nil, in: $0) }
        try? store.removeDeadVolumes()
    }
}
