import KVCodec
import LMDB

/// What of an index is kept, what is made anew, and what is dropped. Decides and changes nothing; `RepairWriter` carries it out.
struct RepairPlan {
    struct PlannedHead {
        var reference: HeadReference
        /// As it will be.
        var record: HeadRecord
        var isPinning: Bool
    }

    private(set) var check: IndexCheck
    /// By position in the check's catalog.
    private(set) var isKept: [Bool] = []
    /// Nodes made anew from images, with the encodings that they get.
    private(set) var recovered: [NodeCatalog.Position: [EncodingRecord]] = [:]
    private(set) var heads: [PlannedHead] = []
    /// Volumes whose images can be read.
    private(set) var readableVolumes: Set<UInt64> = []
    private(set) var changes: [VerificationProblem] = []

    /// Reads `check.index` again, in the same transaction.
    ///
    /// - Parameter isTakingAll: whether every image in the volumes is taken, and not just those that records speak of.
    init(
        _ check: IndexCheck, images: ImageSource, isTakingAll: Bool, in transaction: borrowing ReadTransaction
    ) throws {
        self.check = check
        let named = Set(check.places.map(\.volume)).union(check.volumes.keys)
        readableVolumes = try Set(try images.ids()).union(named).filter { try images.isReadable($0) }
        try recover(images, isTakingAll: isTakingAll || check.isCutShort)
        keepNodes()
        for head in check.heads { try keep(head, in: transaction) }
        listLostVolumes()
    }

    private mutating func note(_ kind: VerificationProblem.Kind, _ subject: String, _ message: String) {
        changes.append(VerificationProblem(kind: kind, subject: subject, message: message))
    }

    // MARK: - Nodes

    private mutating func keepNodes() {
        isKept = Array(repeating: false, count: check.nodes.count)
        for position in check.nodes.parentsFirst {
            let entry = check.nodes[position]
            let hash = check.nodes.hash(position).hex
            if entry.isUnsound {
                note(.node, hash, "dropped: its record is wrong")
            } else if !check.nodes.isInPlace(entry, pageTokens: check.pageTokens) {
                note(.node, hash, "dropped: the page before it is lost")
            } else if entry.parent >= 0, !isKept[Int(entry.parent)] {
                note(.node, hash, "dropped: the page before it is dropped")
            } else {
                isKept[Int(position)] = true
            }
        }
    }

    // MARK: - Images

    /// Makes nodes anew from images: those that records speak of, and those before them.
    private mutating func recover(_ images: ImageSource, isTakingAll: Bool) throws {
        let unsound = check.nodes.entries.indices.filter { check.nodes.entries[$0].isUnsound }.map { check.nodes.hashes[$0] }
        var wanted = Set(unsound).union(check.missing.keys)
        guard isTakingAll || !wanted.isEmpty else { return }
        let sound = check.places.filter { !check.nodes[$0.node].isUnsound }.map(\.location)
        var found: [Digest: [ImageSource.Image]] = [:]
        try images.images(besides: Set(sound)) { found[$0.hash, default: []].append($0) }
        if isTakingAll {
            wanted.formUnion(found.keys)
        } else {
            var rest = Array(wanted)
            while let hash = rest.popLast() {
                for image in found[hash] ?? [] where isUnknown(image.parent) && wanted.insert(image.parent).inserted {
                    rest.append(image.parent)
                }
            }
        }
        let order = wanted.compactMap { found[$0]?.first }.sorted { ($0.firstToken, $0.place) < ($1.firstToken, $1.place) }
        let roots = chainRoots()
        let checker = ImageChecker()
        for image in order { recover(found[image.hash] ?? [], from: images, roots, checker) }
    }

    private func isUnknown(_ hash: Digest) -> Bool {
        check.nodes.position(of: hash).map { check.nodes[$0].isUnsound } ?? true
    }

    private struct Owner {
        var tenant: UInt32
        var model: UInt32
    }

    /// Where the chains of each tenant and model begin.
    private mutating func chainRoots() -> [Digest: Owner] {
        var roots: [Digest: Owner] = [:]
        for tenant in check.tenants.keys {
            for model in check.models.keys {
                guard let hasher = check.hasher(tenant: tenant, model: model) else { continue }
                roots[hasher.root] = Owner(tenant: tenant, model: model)
            }
        }
        return roots
    }

    /// Makes one node anew from its images, if what they are of can be proved.
    private mutating func recover(
        _ images: [ImageSource.Image], from source: ImageSource, _ roots: [Digest: Owner], _ checker: ImageChecker
    ) {
        guard let image = images.first else { return }
        guard let (owner, parent) = owner(of: image, roots), let entry = entry(for: image, owner, parent) else {
            return note(.node, image.hash.hex, "not made anew: the page before its image is lost")
        }
        var encodings: [EncodingRecord] = []
        for image in images {
            guard image.parent == images[0].parent, proves(image, entry, source, checker) else {
                note(.page, image.hash.hex, "its image in volume \(VolumeSet.fileName(of: image.place.volume)) is damaged")
                continue
            }
            var encoding = image.encoding
            encoding.completeFrom += UInt32(entry.start)
            if let same = encodings.firstIndex(where: { $0.profileId == encoding.profileId }) {
                if encoding.completeFrom < encodings[same].completeFrom { encodings[same] = encoding }
            } else if encodings.count < Node.encodingsMax {
                encodings.append(encoding)
            }
        }
        guard !encodings.isEmpty else { return }
        let position = check.enter(entry, hash: image.hash)
        recovered[position] = encodings
        note(.node, image.hash.hex, "made anew from its page image")
    }

    private func owner(
        of image: ImageSource.Image, _ roots: [Digest: Owner]
    ) -> (owner: Owner, parent: NodeCatalog.Position)? {
        if image.firstToken == 0 { return roots[image.parent].map { ($0, NodeCatalog.root) } }
        guard let parent = check.nodes.position(of: image.parent), !check.nodes[parent].isUnsound else { return nil }
        return (Owner(tenant: check.nodes[parent].tenant, model: check.nodes[parent].model), parent)
    }

    private func entry(for image: ImageSource.Image, _ owner: Owner, _ parent: NodeCatalog.Position) -> NodeCatalog.Entry? {
        let first = image.firstToken / check.pageTokens * check.pageTokens
        let start = image.firstToken - first
        let end = start + image.tokenCount
        guard end <= check.pageTokens, check.models[owner.model]?.spec.fingerprint == image.fingerprint else { return nil }
        var entry = NodeCatalog.Entry(
            NodeRecord(
                base: .zero, parent: .zero, pageFirstToken: UInt64(first), start: UInt32(start), end: UInt32(end),
                parentEnd: UInt32(start), modelId: owner.model, tenantId: owner.tenant, children: 0, heads: 0, tokenBytes: 0,
                kind: (end - start == check.pageTokens ? Node.Kind.page : .piece).rawValue, encodingCount: 1, flags: 0, pins: 0,
                createdSeconds: 0, createdAccess: 0, hash: image.hash, next: 0), number: 0)
        entry.isRecovered = true
        entry.parent = parent
        // a piece that goes on inside a page stands behind the page before that one
        entry.base = start == 0 ? parent : parent >= 0 ? check.nodes[parent].base : NodeCatalog.missing
        return check.nodes.isInPlace(entry, pageTokens: check.pageTokens) ? entry : nil
    }

    /// Whether an image is whole, and is what its hash says it is.
    private mutating func proves(
        _ found: ImageSource.Image, _ entry: NodeCatalog.Entry, _ source: ImageSource, _ checker: ImageChecker
    ) -> Bool {
        guard let hasher = check.hasher(tenant: entry.tenant, model: entry.model) else { return false }
        let isProved = try? source.withImage(found.place) { image in
            try image.verifyAll()
            try checker.decode(image)
            let tokens = image.identity.tokens
            let hash =
                entry.kind == .page
                ? hasher.page(after: found.parent, tokens: tokens)
                : hasher.piece(after: found.parent, start: Int(entry.start), tokens: tokens)
            return try hash == found.hash && TokenSequence(canonical: tokens).count == Int(entry.end)
        }
        return isProved == true
    }

    // MARK: - Heads

    private mutating func keep(_ head: IndexCheck.CheckedHead, in transaction: borrowing ReadTransaction) throws {
        let fault = check.fault(of: head)
        if fault == nil, head.isEmpty || check.nodes.position(of: head.record.tip).map({ isKept[Int($0)] }) ?? false {
            heads.append(PlannedHead(reference: head.reference, record: head.record, isPinning: head.isPinning))
            return
        }
        let reason = fault ?? "its last page is dropped"
        guard let hasher = check.hasher(tenant: head.record.tenantId, model: head.record.modelId),
            hasher.root == head.record.root, Names.isPossible(head.reference.key.name)
        else { return note(.head, head.name, "dropped: \(reason)") }
        if case .finished(.video, _) = head.reference {
            return note(.head, head.name, "dropped: \(reason); what is left of it is found by its tokens")
        }
        guard let (tip, end) = try soundPrefix(of: head.record, in: transaction) else {
            return note(.head, head.name, "dropped: \(reason), and nothing is left before it")
        }
        var record = head.record
        record.tip = check.nodes.hash(tip)
        record.tipEnd = UInt32(end)
        record.tokenCount = UInt64(Int(check.nodes[tip].pageFirstToken) + end)
        heads.append(PlannedHead(reference: head.reference, record: record, isPinning: head.isPinning))
        note(.head, head.name, "cut to its first \(record.tokenCount) of \(head.record.tokenCount) tokens: \(reason)")
    }

    /// The last node before a head's end that is kept, and the end of its tokens that the head has, from the page's first.
    private func soundPrefix(
        of head: HeadRecord, in transaction: borrowing ReadTransaction
    ) throws -> (tip: NodeCatalog.Position, end: Int)? {
        var hash = head.tip
        var end = Int.max
        // each step leads to an earlier token, or, where records contradict each other, nowhere
        for _ in 0...check.nodes.count {
            if let position = check.nodes.position(of: hash) {
                let entry = check.nodes[position]
                if isKept[Int(position)], entry.model == head.modelId, entry.tenant == head.tenantId {
                    let isAtTip = hash == head.tip
                    let last = min(end, Int(entry.end), isAtTip ? Int(head.tipEnd) : .max)
                    if last > entry.start { return (position, last) }
                }
                let record = try check.index.nodes.withValue(hash, in: transaction) { try NodeView($0).record }
                guard let record, record.firstOwnToken > 0 else { return nil }
                hash = record.parent
                end = record.start > 0 ? Int(record.parentEnd) : .max
            } else if let before = check.missing[hash] ?? nil {
                hash = before
                end = .max
            } else {
                return nil
            }
        }
        return nil
    }

    // MARK: - Volumes

    private mutating func listLostVolumes() {
        for id in Set(check.places.map(\.volume)).subtracting(readableVolumes).sorted() {
            note(.volume, VolumeSet.fileName(of: id), "cannot be read: its pages count as not stored")
        }
    }
}

extension VolumeSet.Location: Comparable {
    static func < (left: Self, right: Self) -> Bool { (left.volume, left.page) < (right.volume, right.page) }
}
