import KVCodec
import LMDB

/// A store without page images, of so many pages at most, into which the paths of a trace are entered one after the other. Look-ups, the order
/// of eviction and evictions are the engine's own.
package final class ReplayStore {
    /// Tokens of a page: few, so that the index stays small.
    package static let pageTokens = 32

    package let store: Store
    /// Pages evicted so far.
    package private(set) var evictions = 0
    private let capacity: Int
    private let model: StoredModel
    private let tenant: StoredTenant
    private let volume: UInt64

    /// - Parameters:
    ///   - path: a folder that does not exist. The store is not safe on the disk, and meant to be thrown away.
    ///   - capacity: pages.
    package init(at path: String, policy: EvictionPolicy, capacity: Int) throws {
        var options = Store.Options()
        options.pageTokens = Self.pageTokens
        options.isScratch = true
        store = try Store.create(at: path, options: options)
        try store.addModel(
            ModelSpec(
                name: "replay", fingerprint: .blake2b([1]), elementType: .float16,
                layers: [LayerGeometry(keyValueHeads: 1, keyDim: 64, valueDim: 64)]))
        try store.update { $0.policy = policy }
        self.capacity = max(1, capacity)
        model = try store.storedModel(named: "replay")
        // one salt for all replays, so that nodes have the same hashes in each
        tenant = try store.makeTenant(named: Store.defaultTenant, salt: .zero)
        volume = try store.makeVolumeWithoutFile()
    }

    /// Looks a sequence up, and enters the pages that are missing, evicting others for them, but none of the sequence itself.
    ///
    /// - Parameter tokens: whole pages, and at the end maybe a piece of one.
    /// - Returns: pages that were stored, a matched piece included.
    package func replay(_ tokens: TokenSequence) throws -> Int {
        let prefix = try store.longestPrefix(of: tokens, model: "replay")
        let isWhole = prefix.tokenCount == tokens.count
        let pages = prefix.tokenCount / Self.pageTokens
        let matched = isWhole && tokens.count % Self.pageTokens > 0 ? pages + 1 : pages
        if !isWhole { try enter(tokens, after: prefix, from: pages) }
        return matched
    }

    private func enter(_ tokens: TokenSequence, after prefix: StoredPrefix, from first: Int) throws {
        let index = store.index
        let hasher = try store.hasher(tenant: tenant, model: model)
        let count = (tokens.count + Self.pageTokens - 1) / Self.pageTokens
        var stored: [EvictionMemory.PathNode] = []
        let before = Array(prefix.path.prefix(first))
        let start = before.last?.hash ?? hasher.root
        let access = try store.writeWithUses { transaction -> UInt64? in
            stored = []
            var tip = start
            for page in first..<count {
                guard try makeRoom(keeping: tip, in: transaction) else { break }
                tip = try store.enterWithoutImage(
                    tokens, page: page, after: tip, hasher, volume: volume, model: model.id, tenant: tenant.id,
                    in: transaction)
                stored.append(EvictionMemory.PathNode(hash: tip, isTail: tokens.count - page * Self.pageTokens < Self.pageTokens))
                if let memory = index.evictionMemory.memory(of: tip) { try index.remember(memory, of: tip, in: transaction) }
            }
            guard !stored.isEmpty else { return nil }
            return try index.countAccess(at: tip, together: stored.count, in: transaction)
        }
        if let access { index.evictionMemory.note(stored: stored, after: before, access: access) }
    }

    /// - Returns: false when nothing may be evicted.
    private func makeRoom(keeping tip: Digest, in transaction: borrowing WriteTransaction) throws -> Bool {
        while try store.index.nodes.count(in: transaction) >= capacity {
            guard let leaf = try store.index.victim(ofTenant: nil, excluding: [tip], in: transaction) else { return false }
            evictions += try store.index.evict(leaf, reason: .room, in: transaction).pages
        }
        return true
    }
}
