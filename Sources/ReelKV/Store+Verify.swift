import KVCodec
import LMDB

/// One thing that is not as it should be.
public struct VerificationProblem: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable {
        case node, reference, head, volume, page
    }

    public var kind: Kind
    /// What it is about: a chain hash, a name, a file.
    public var subject: String
    public var message: String
}

/// What a verification looked at and what it found.
public struct VerificationReport: Hashable, Sendable {
    public var nodes = 0
    public var pages = 0
    public var heads = 0
    public var volumes = 0
    public var bytes = 0
    /// Pages that failed a checksum before and count as absent.
    public var quarantined = 0
    public var problems: [VerificationProblem] = []

    public var isSound: Bool { problems.isEmpty }
}

extension Store {
    /// Checks that the store is what it should be: every record, the references between them, and, unless `skippingPages`, the
    /// checksums and identity of every page image. Changes nothing; other processes may go on reading and writing.
    ///
    /// - Parameter progress: called with the pages checked so far and all of them.
    public func verify(
        skippingPages: Bool = false, progress: ((_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> VerificationReport {
        var check = try read { try IndexCheck(self, in: $0) }
        check.checkVolumes()
        if !skippingPages { try check.checkPages(progress: progress) }
        return check.report
    }
}

/// A verification in progress: what the index says, read once in one transaction.
private struct IndexCheck {
    private let store: Store
    private var nodes: [Digest: Node] = [:]
    private var volumes: [UInt64: VolumeRecord] = [:]
    /// Of each model, by its id.
    private var fingerprints: [UInt32: Digest] = [:]
    private(set) var report = VerificationReport()

    init(_ store: Store, in transaction: borrowing ReadTransaction) throws {
        self.store = store
        try store.index.nodes.forEachRaw(in: .all, in: transaction) { key, value in
            let hash = try DigestKey.decode(key)
            do {
                nodes[hash] = try Node(bytes: value)
            } catch {
                report.problems.append(.init(kind: .node, subject: hash.hex, message: "\(error)"))
            }
            return .continue
        }
        report.nodes = nodes.count
        for (id, record) in try store.index.allVolumes(in: transaction) { volumes[id] = record }
        report.volumes = volumes.count
        let heads = try readHeads(in: transaction)
        try checkNames(in: transaction)
        checkReferences(heads)
        try checkChildren(in: transaction)
    }

    private mutating func problem(_ kind: VerificationProblem.Kind, _ subject: String, _ message: String) {
        report.problems.append(VerificationProblem(kind: kind, subject: subject, message: message))
    }

    // MARK: The index

    private mutating func readHeads(in transaction: borrowing ReadTransaction) throws -> [(name: String, head: Head)] {
        var heads: [(name: String, head: Head)] = []
        for kind in SequenceKind.allCases {
            for (key, head) in try store.index.allHeads(kind, in: transaction) {
                heads.append(("\(kind.noun)/\(key.name)", head))
            }
        }
        for (key, head) in try store.index.allBuilding(in: transaction) {
            heads.append(("\(head.kind.noun)/\(key.head.name) (being written)", head))
        }
        report.heads = heads.count
        return heads
    }

    /// A node's key must be the hash of its tokens behind its base, with its tenant's salt and its model.
    private mutating func checkNames(in transaction: borrowing ReadTransaction) throws {
        let models = Dictionary(try store.index.allModels(in: transaction).map { ($0.id, $0) }) { first, _ in first }
        let tenants = Dictionary(try store.index.allTenants(in: transaction).map { ($0.id, $0) }) { first, _ in first }
        fingerprints = models.mapValues(\.spec.fingerprint)
        for (hash, node) in nodes {
            guard let model = models[node.record.modelId], let tenant = tenants[node.record.tenantId] else {
                problem(.node, hash.hex, "belongs to a model or tenant that is not stored")
                continue
            }
            let hasher = store.hasher(tenant: tenant, model: model)
            let expected =
                node.kind == .page
                ? hasher.page(after: node.record.base, tokens: node.tokens)
                : hasher.piece(after: node.record.base, start: Int(node.record.start), tokens: node.tokens)
            if expected != hash { problem(.node, hash.hex, "its tokens do not give its chain hash") }
            if node.record.pageFirstToken == 0, node.record.base != hasher.root {
                problem(.node, hash.hex, "is a first page, but not of its model's and tenant's chain")
            }
        }
    }

    private mutating func checkReferences(_ heads: [(name: String, head: Head)]) {
        var children: [Digest: UInt32] = [:]
        var tips: [Digest: UInt32] = [:]
        for (hash, node) in nodes {
            if node.firstOwnToken > 0, nodes[node.record.parent] == nil {
                problem(.reference, hash.hex, "its parent is not stored")
            }
            children[node.record.parent, default: 0] += 1
        }
        for (name, head) in heads where !head.isEmpty {
            tips[head.record.tip, default: 0] += 1
            guard let tip = nodes[head.record.tip] else {
                problem(.head, name, "its last page is not stored")
                continue
            }
            if tip.record.pageFirstToken + UInt64(head.record.tipEnd) != head.record.tokenCount
                || head.record.tipEnd > tip.record.end
            {
                problem(.head, name, "its length is not that of its chain")
            }
        }
        for (hash, node) in nodes {
            if node.record.children != children[hash, default: 0] || node.record.heads != tips[hash, default: 0] {
                problem(.reference, hash.hex, "its reference counts are wrong")
            }
            if node.record.children == 0, node.record.heads == 0 {
                problem(.reference, hash.hex, "nothing refers to it")
            }
        }
    }

    private mutating func checkChildren(in transaction: borrowing ReadTransaction) throws {
        var listed = 0
        try store.index.children.forEachRaw(in: .all, in: transaction) { key, value in
            let hash = try DigestKey.decode(value)
            guard let node = nodes[hash], let tokens = try? TokenSequence(canonical: node.tokens),
                ChildKey.key(of: hash, base: node.record.base, tokens: tokens).elementsEqual(key)
            else {
                problem(.reference, hash.hex, "is listed as a child in the wrong place")
                return .continue
            }
            listed += 1
            return .continue
        }
        if listed != nodes.count { problem(.reference, "child", "\(nodes.count - listed) nodes are not listed as children") }
    }

    // MARK: Volumes and pages

    mutating func checkVolumes() {
        var live: [UInt64: (bytes: UInt64, pages: UInt64)] = [:]
        for node in nodes.values {
            for encoding in node.encodings {
                live[encoding.volumeId, default: (0, 0)].bytes += UInt64(encoding.imageBytes)
                live[encoding.volumeId, default: (0, 0)].pages += 1
            }
        }
        for (id, record) in volumes {
            let counted = live.removeValue(forKey: id) ?? (0, 0)
            if counted.bytes != record.liveBytes || counted.pages != record.livePages {
                problem(.volume, VolumeSet.fileName(of: id), "its live bytes or pages are counted wrong")
            }
            do {
                _ = try store.volumes.volume(id)
            } catch {
                if record.livePages > 0 { problem(.volume, VolumeSet.fileName(of: id), "\(error)") }
            }
        }
        for id in live.keys { problem(.volume, VolumeSet.fileName(of: id), "pages lie in it, but the index does not know it") }
    }

    mutating func checkPages(progress: ((Int, Int) -> Void)?) throws {
        // in the order they lie on the disk
        let all = nodes.flatMap { hash, node in node.encodings.map { (hash: hash, node: node, encoding: $0) } }
            .sorted { ($0.encoding.volumeId, $0.encoding.pageId) < ($1.encoding.volumeId, $1.encoding.pageId) }
        for (done, item) in all.enumerated() {
            progress?(done, all.count)
            report.pages += 1
            report.bytes += Int(item.encoding.imageBytes)
            if item.encoding.isQuarantined {
                report.quarantined += 1
                continue
            }
            guard let message = check(item.node, item.hash, item.encoding) else { continue }
            // it may have been deleted since the index was read
            let isStillThere = try store.read { try store.index.node(item.hash, in: $0)?.encodings.contains(item.encoding) }
            if isStillThere == true { problem(.page, item.hash.hex, message) }
        }
        progress?(all.count, all.count)
    }

    /// What is wrong with a page image; nil when nothing is.
    private func check(_ node: Node, _ hash: Digest, _ encoding: EncodingRecord) -> String? {
        do {
            let found: Void? = try store.volumes.volume(encoding.volumeId).withImage(encoding.pageId) { bytes in
                guard bytes.count == Int(encoding.imageBytes) else {
                    throw StoreError(.damaged, "has \(bytes.count) bytes where the index says \(encoding.imageBytes)")
                }
                let image = try PageImage(parsing: bytes)
                try image.verifyAll()
                guard image.identity.chainHash == hash, image.identity.parentHash == node.record.parent,
                    image.identity.tokens == node.tokens, image.identity.firstToken == node.firstOwnToken,
                    image.identity.modelFingerprint == fingerprints[node.record.modelId],
                    image.tokenCount == node.ownTokens
                else { throw StoreError(.damaged, "is another page's image") }
            }
            return found == nil ? "is not in volume \(VolumeSet.fileName(of: encoding.volumeId))" : nil
        } catch {
            return "\(error)"
        }
    }
}
