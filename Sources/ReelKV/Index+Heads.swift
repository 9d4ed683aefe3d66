import KVCodec
import LMDB

extension Index {
    func heads(of kind: SequenceKind) -> Database<RawBytes, RawBytes> { kind == .video ? videos : sessions }

    func head(
        _ kind: SequenceKind, _ key: HeadKey, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Head? {
        try heads(of: kind).withValue(key.bytes, in: transaction) { try opened(Head(bytes: $0), place: Head.place(kind, key)) }
    }

    /// Puts a finished head in place of `previous`, and moves the references.
    func replaceHead(
        _ kind: SequenceKind, _ key: HeadKey, with head: Head?, in transaction: borrowing WriteTransaction
    ) throws {
        let previous = try self.head(kind, key, in: transaction)
        if let previous { _ = try tips.delete(TipKey(tip: previous.record.tip, kind: kind, head: key).bytes, in: transaction) }
        if let head {
            try retain(
                head.record.tip, \.heads, isPinning: head.record.isPinned, isRoot: head.isEmpty, in: transaction)
            let bytes = try encoded(head, place: Head.place(kind, key), in: transaction)
            try heads(of: kind).put(key.bytes, bytes, in: transaction)
            if !head.isEmpty {
                try tips.put(TipKey(tip: head.record.tip, kind: kind, head: key).bytes, [], in: transaction)
            }
        } else {
            _ = try heads(of: kind).delete(key.bytes, in: transaction)
        }
        if let previous {
            try release(previous.record.tip, \.heads, isPinning: previous.record.isPinned, in: transaction)
        }
    }

    /// The finished heads whose tip is a node.
    func finishedHeads(
        at tip: Digest, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [(kind: SequenceKind, key: HeadKey)] {
        var found: [(kind: SequenceKind, key: HeadKey)] = []
        try tips.forEachRaw(in: .prefix(tip.bytes), in: transaction) { key, _ in
            let key = try TipKey(bytes: key)
            found.append((key.kind, key.head))
            return .continue
        }
        return found
    }

    // MARK: - Heads being written

    func buildingHead(
        _ key: BuildingKey, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> Head? {
        try building.withValue(key.bytes, in: transaction) { try opened(Head(bytes: $0), place: Head.place(key)) }
    }

    /// Moves a writer's head to `head`, or removes it when nil, and moves the references. What is being written is not evicted.
    ///
    /// - Parameter isKeeping: whether pages that nothing else refers to stay, to be used again until they are evicted.
    func moveBuilding(
        _ key: BuildingKey, to head: Head?, isKeeping: Bool = false, in transaction: borrowing WriteTransaction
    ) throws {
        let previous = try buildingHead(key, in: transaction)
        if let head {
            try retain(head.record.tip, \.heads, isPinning: true, isRoot: head.isEmpty, in: transaction)
            try building.put(key.bytes, try encoded(head, place: Head.place(key), in: transaction), in: transaction)
        } else {
            _ = try building.delete(key.bytes, in: transaction)
        }
        if let previous {
            try release(previous.record.tip, \.heads, isPinning: true, isKeeping: isKeeping, in: transaction)
        }
    }

    func allBuilding(in transaction: borrowing some Transaction & ~Copyable) throws -> [(key: BuildingKey, head: Head)] {
        var all: [(key: BuildingKey, head: Head)] = []
        try building.forEachRaw(in: .all, in: transaction) { key, value in
            let key = try BuildingKey(bytes: key)
            all.append((key, try opened(Head(bytes: value), place: Head.place(key))))
            return .continue
        }
        return all
    }

    func allHeads(
        _ kind: SequenceKind, tenant: UInt32? = nil, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [(key: HeadKey, head: Head)] {
        var all: [(key: HeadKey, head: Head)] = []
        try heads(of: kind).forEachRaw(in: .all, in: transaction) { key, value in
            let key = try HeadKey(bytes: key)
            if tenant == nil || key.tenant == tenant {
                all.append((key, try opened(Head(bytes: value), place: Head.place(kind, key))))
            }
            return .continue
        }
        return all
    }

    // MARK: - Encrypted tenants

    /// The head with what was sealed of it, where the key that it is sealed with was given.
    private func opened(_ head: Head, place: [UInt8]) throws -> Head {
        guard let sealed = head.sealed, let keys = keyRing.keys(of: head.record.tenantId) else { return head }
        let epoch = sealed.withUnsafeBytes { SealedValue.header($0)?.header.keyEpoch }
        if let epoch, epoch > keys.current.number { return head }
        var opened = head
        opened.sealed = nil
        let details = try sealed.withUnsafeBytes { try open($0, of: head.record.tenantId, place: place) }
        try details.withUnsafeBytes { try opened.readDetails($0) }
        return opened
    }

    /// A head's bytes, sealed where its tenant is encrypted.
    func encoded(
        _ head: Head, place: [UInt8], in transaction: borrowing some Transaction & ~Copyable
    ) throws -> [UInt8] {
        if head.sealed != nil { return head.encoded() }
        guard let keys = try sealingKeys(of: head.record.tenantId, in: transaction) else {
            if head.record.isSealed { throw Self.noKey("tenant \(head.record.tenantId)") }
            return head.encoded()
        }
        var sealed = head
        sealed.record.isSealed = true
        let details = sealed.encodedDetails(&sealed.record)
        sealed.sealed = SealedValue.seal(details, epoch: keys.current.number, place: place, with: keys.current.values)
        return sealed.encoded()
    }
}
