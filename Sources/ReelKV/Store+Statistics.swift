import KVCodec
import LMDB

/// How much a store holds, and what it takes.
public struct StoreStatistics: Hashable, Sendable {
    /// Pages and tail pieces of one profile.
    public struct Profile: Hashable, Sendable {
        public var profileID: UInt16
        public var pages: Int
        public var tokens: Int
        public var elements: Int
        /// Bytes of the page images alone.
        public var imageBytes: Int
        /// Bytes that the same elements take uncompressed.
        public var exactBytes: Int

        public var bitsPerElement: Double { StoreStatistics.bits(imageBytes, elements) }
    }

    public struct Volume: Hashable, Sendable {
        public var id: UInt64
        public var fileName: String
        public var isSealed: Bool
        public var fileBytes: Int
        public var liveBytes: Int
        public var livePages: Int
        /// Bytes of page images in it that nothing refers to any more.
        public var deadBytes: Int
    }

    /// Tokens stored, each once however many sequences share it.
    public var tokens = 0
    /// Elements of those tokens over all layers, keys and values.
    public var elements = 0
    /// Bytes that those elements take uncompressed.
    public var exactBytes = 0
    /// Bytes of every file in the store's folder.
    public var storedBytes = 0
    public var indexBytes = 0
    public var models = 0
    public var tenants = 0
    public var videos = 0
    public var sessions = 0
    /// Sequences being written, or left unfinished.
    public var building = 0
    public var profiles: [Profile] = []
    public var volumes: [Volume] = []
    public var usage = Usage()
    /// Pages by the time since they were last used, the latest first.
    public var ages: [AgeClass] = []
    /// Bytes of page images published for callers since the store was created.
    public var appendedBytes = 0
    /// Bytes of page images copied by compaction, and written by demotion.
    public var copiedBytes = 0
    public var demotedBytes = 0
    /// Volumes removed by compaction.
    public var compactedVolumes = 0
    public var scrub = ScrubStatistics()

    /// Bytes of page images written for each byte that was appended for callers; 1 when nothing was copied.
    public var writeAmplification: Double {
        appendedBytes > 0 ? 1 + (Double(copiedBytes) + Double(demotedBytes)) / Double(appendedBytes) : 1
    }
    public var bitsPerElement: Double { Self.bits(storedBytes, elements) }
    /// Uncompressed bytes over stored bytes.
    public var ratio: Double { storedBytes > 0 ? Double(exactBytes) / Double(storedBytes) : 0 }

    fileprivate static func bits(_ bytes: Int, _ elements: Int) -> Double {
        elements > 0 ? 8 * Double(bytes) / Double(elements) : 0
    }
}

extension Store {
    /// Counts what the store holds. Reads the whole index, no page.
    public func statistics() throws -> StoreStatistics {
        var statistics = StoreStatistics()
        try read { transaction in
            let models = try index.allModels(in: transaction)
            statistics.models = models.count
            statistics.tenants = try index.allTenants(in: transaction).count
            statistics.videos = try index.videos.count(in: transaction)
            statistics.sessions = try index.sessions.count(in: transaction)
            statistics.building = try index.building.count(in: transaction)
            try countNodes(Dictionary(models.map { ($0.id, $0.spec) }) { first, _ in first }, into: &statistics, in: transaction)
            statistics.volumes = try index.allVolumes(in: transaction).map { (id, record) -> StoreStatistics.Volume in
                let fileBytes = Platform.fileSize(volumes.path(of: id)) ?? 0
                return StoreStatistics.Volume(
                    id: id, fileName: VolumeSet.fileName(of: id), isSealed: record.isSealed, fileBytes: fileBytes,
                    liveBytes: Int(record.liveBytes), livePages: Int(record.livePages),
                    deadBytes: record.deadBytes(fileBytes: fileBytes))
            }
            let counters = try index.counters(in: transaction)
            statistics.appendedBytes = Int(clamping: counters.appendedBytes)
            statistics.copiedBytes = Int(clamping: counters.copiedBytes)
            statistics.demotedBytes = Int(clamping: counters.demotedBytes)
            statistics.compactedVolumes = Int(clamping: counters.compactedVolumes)
            statistics.usage = StoreStatistics.Usage(counters)
            statistics.scrub = ScrubStatistics(try index.scrub(in: transaction))
        }
        statistics.indexBytes = Platform.fileSize(index.environment.filePath) ?? 0
        statistics.storedBytes = try Platform.folderBytes(folder)
        return statistics
    }

    private func countNodes(
        _ models: [UInt32: ModelSpec], into statistics: inout StoreStatistics, in transaction: borrowing ReadTransaction
    ) throws {
        var profiles: [UInt16: StoreStatistics.Profile] = [:]
        var ages = NodeAges()
        try index.nodes.forEach(in: transaction) { key, bytes in
            let node = try NodeView(bytes)
            ages.add(try DigestKey.decode(key), node)
            guard let model = models[node.record.modelId] else { return .continue }
            let tokens = Int(node.record.end - node.record.start)
            let encodings = (0..<node.encodingCount).map { node.encoding($0) }
            let completeFrom = encodings.map(\.completeFrom).min() ?? node.record.start
            let elements = model.elements(of: node.record, completeFrom: completeFrom)
            statistics.tokens += tokens
            statistics.elements += elements
            statistics.exactBytes += elements * model.elementType.byteCount
            for encoding in encodings {
                var profile =
                    profiles[encoding.profileId]
                    ?? StoreStatistics.Profile(
                        profileID: encoding.profileId, pages: 0, tokens: 0, elements: 0, imageBytes: 0, exactBytes: 0)
                profile.pages += 1
                profile.tokens += tokens
                let elements = model.elements(of: node.record, completeFrom: encoding.completeFrom)
                profile.elements += elements
                profile.imageBytes += Int(encoding.imageBytes)
                profile.exactBytes += elements * model.elementType.byteCount
                profiles[encoding.profileId] = profile
            }
            return .continue
        }
        statistics.profiles = profiles.values.sorted { $0.profileID < $1.profileID }
        try ages.addUses(index, in: transaction)
        statistics.ages = ages.histogram(now: Platform.unixSeconds())
    }
}

extension ModelSpec {
    /// Elements a node holds: sliding-window layers may lack its first tokens.
    fileprivate func elements(of node: NodeRecord, completeFrom: UInt32) -> Int {
        let lacking = layers.filter { $0.slidingWindow != nil }.reduce(0) { $0 + $1.elementsPerToken }
        return elementsPerToken * Int(node.end - node.start) - lacking * (Int(completeFrom) - Int(node.start))
    }
}
