import KVCodec
import LMDB

/// One thing that is not as it should be.
public struct VerificationProblem: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable {
        case model, tenant, node, reference, head, volume, page
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
    /// checksums and identity of every page image. Other processes may go on reading and writing.
    ///
    /// - Parameters:
    ///   - quarantining: whether to mark damaged pages, so that they count as absent from then on. Nothing else is ever changed.
    ///   - progress: called with the pages checked so far and all of them.
    public func verify(
        skippingPages: Bool = false, quarantining: Bool = false, progress: ((_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> VerificationReport {
        if quarantining { try checkWritable() }
        var check = try read { try IndexCheck(self, in: $0) }
        try check.checkVolumes()
        if !skippingPages { try check.checkPages(progress: progress) }
        if quarantining, !check.damaged.isEmpty {
            try write { transaction in
                for (hash, encoding) in check.damaged {
                    try index.quarantine(hash, volume: encoding.volumeId, page: encoding.pageId, in: transaction)
                }
            }
        }
        return check.report
    }
}

/// Looks at the volumes and the page images in them.
extension IndexCheck {
    mutating func checkVolumes() throws {
        var live: [UInt64: (bytes: UInt64, pages: UInt64)] = [:]
        for (hash, node) in nodes {
            for encoding in node.encodings {
                if encoding.isLost {
                    if !encoding.isQuarantined { problem(.node, hash.hex, "an encoding lies nowhere, but counts as stored") }
                    continue
                }
                live[encoding.volumeId, default: (0, 0)].bytes += UInt64(encoding.imageBytes)
                live[encoding.volumeId, default: (0, 0)].pages += 1
            }
        }
        for (id, record) in volumes {
            let counted = live.removeValue(forKey: id) ?? (0, 0)
            if counted.bytes != record.liveBytes || counted.pages != record.livePages {
                problem(.volume, VolumeSet.fileName(of: id), "its live bytes or pages are counted wrong")
            }
            guard record.livePages > 0 else { continue }
            do {
                _ = try store.volumes.volume(id)
            } catch {
                // it may have been deleted since the index was read
                let isStillThere = try store.read { try store.index.volumes.contains(id, in: $0) }
                if isStillThere { problem(.volume, VolumeSet.fileName(of: id), "\(error)") }
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
            guard let (message, encoding) = try checkFollowing(item.node, item.hash, item.encoding) else { continue }
            problem(.page, item.hash.hex, message)
            damaged.append((item.hash, encoding))
        }
        progress?(all.count, all.count)
    }

    /// What is wrong with a page image, and the encoding as it lies now; nil when nothing is. A page may have been moved, deleted or
    /// found damaged since the index was read: it counts as what it is now.
    private func checkFollowing(
        _ node: Node, _ hash: Digest, _ known: EncodingRecord
    ) throws -> (message: String, encoding: EncodingRecord)? {
        var encoding = known
        while let message = check(node, hash, encoding) {
            let stored = try store.read { try store.index.node(hash, in: $0)?.encodings ?? [] }
            guard let current = stored.first(where: { $0.profileId == known.profileId }), !current.isQuarantined else {
                return nil
            }
            if current.location == encoding.location { return (message, current) }
            encoding = current
        }
        return nil
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
                    image.identity.modelFingerprint == models[node.record.modelId]?.spec.fingerprint,
                    image.tokenCount == node.ownTokens
                else { throw StoreError(.damaged, "is another page's image") }
            }
            return found == nil ? "is not in volume \(VolumeSet.fileName(of: encoding.volumeId))" : nil
        } catch {
            return "\(error)"
        }
    }
}
