/// Watches a sample of the nodes, stored or not, for when they are used again; and which of them plain `lru` would hold, in the same
/// room, so that what another order of eviction gains or loses against it is known and not guessed.
package struct ReturnSampler: Sendable {
    package struct Seen {
        package var key: UInt64 = 0
        package var lastAccess: UInt64 = 0
        package var uses: UInt8 = 0
        package var reuseClass: UInt8 = 0
        /// Among the nodes that `lru` would hold.
        package var isHeld = false
        fileprivate var newer: Int32 = none
        fileprivate var older: Int32 = none
    }

    private var entries: [Seen] = []
    private var places: [UInt64: Int32] = [:]
    private var newest: Int32 = none
    private var oldest: Int32 = none
    private var oldestHeld: Int32 = none
    private var held = 0
    /// One key in `mask + 1` is watched.
    private(set) var mask: UInt64 = 0

    private static let none: Int32 = -1
    /// Nodes watched at most.
    package static let capacity = 65_536
    /// How many times as many nodes as the store holds are wanted in sight.
    private static let reach = 8

    package init() {}

    func isSampled(_ key: UInt64) -> Bool { key >> 24 & mask == 0 }

    /// Notes a use.
    ///
    /// - Parameter classified: the node's class from now on, by how often it was used, and its last gap, as the sampler knows them.
    /// - Returns: what was known of the node before; nil when nothing was.
    package mutating func use(
        _ key: UInt64, at access: UInt64, classified: (_ uses: Int, _ gap: UInt64) -> UInt8
    ) -> Seen? {
        if let place = places[key] {
            let before = entries[Int(place)]
            touch(place)
            entries[Int(place)].uses = before.uses == .max ? .max : before.uses + 1
            entries[Int(place)].lastAccess = access
            entries[Int(place)].reuseClass = classified(
                Int(entries[Int(place)].uses), access - min(access, before.lastAccess))
            return before
        }
        let place = Int32(entries.count)
        entries.append(Seen(key: key, lastAccess: access, uses: 1, reuseClass: classified(1, 0)))
        places[key] = place
        link(place)
        return nil
    }

    /// Makes a node the newest, without counting a use.
    package mutating func refresh(_ key: UInt64) {
        if let place = places[key] { touch(place) }
    }

    /// Lets go of what is over capacity, the oldest first.
    package mutating func trim(_ lost: (Seen) -> Void) {
        while entries.count > Self.capacity { lost(remove(oldest)) }
    }

    /// Samples more coarsely when the store has grown, and holds as much as it could.
    ///
    /// - Parameter nodes: how many the store has room for.
    package mutating func fit(to nodes: Int) {
        var wanted = mask
        while Self.reach * nodes / Int(wanted + 1) > Self.capacity { wanted = wanted << 1 | 1 }
        if wanted != mask {
            mask = wanted
            for key in entries.map(\.key) where !isSampled(key) {
                if let place = places[key] { _ = remove(place) }
            }
        }
        let heldMax = max(1, nodes / Int(mask + 1))
        while held > heldMax { dropHeld() }
    }

    /// By class and age, the nodes that have not been used again yet.
    package func waiting(at access: UInt64) -> [Float] {
        var waiting = [Float](repeating: 0, count: ReturnTables.cells)
        for entry in entries {
            waiting[ReturnTables.cell(entry.reuseClass, access - min(access, entry.lastAccess))] += 1
        }
        return waiting
    }

    // MARK: - The order of use

    private mutating func touch(_ place: Int32) {
        unlink(place)
        link(place)
    }

    private mutating func link(_ place: Int32) {
        entries[Int(place)].older = newest
        entries[Int(place)].newer = Self.none
        if newest != Self.none { entries[Int(newest)].newer = place }
        newest = place
        if oldest == Self.none { oldest = place }
        entries[Int(place)].isHeld = true
        held += 1
        if oldestHeld == Self.none { oldestHeld = place }
    }

    private mutating func unlink(_ place: Int32) {
        let entry = entries[Int(place)]
        if entry.isHeld {
            if oldestHeld == place { oldestHeld = entry.newer }
            held -= 1
            entries[Int(place)].isHeld = false
        }
        if entry.newer != Self.none { entries[Int(entry.newer)].older = entry.older } else { newest = entry.older }
        if entry.older != Self.none { entries[Int(entry.older)].newer = entry.newer } else { oldest = entry.newer }
    }

    private mutating func dropHeld() {
        guard oldestHeld != Self.none else { return }
        entries[Int(oldestHeld)].isHeld = false
        oldestHeld = entries[Int(oldestHeld)].newer
        held -= 1
    }

    /// The last entry takes the place of the removed one, so that entries lie without gaps.
    private mutating func remove(_ place: Int32) -> Seen {
        unlink(place)
        let removed = entries[Int(place)]
        places[removed.key] = nil
        let last = Int32(entries.count - 1)
        if place != last {
            let moved = entries[Int(last)]
            entries[Int(place)] = moved
            places[moved.key] = place
            if moved.newer != Self.none { entries[Int(moved.newer)].older = place } else { newest = place }
            if moved.older != Self.none { entries[Int(moved.older)].newer = place } else { oldest = place }
            if oldestHeld == last { oldestHeld = place }
        }
        entries.removeLast()
        return removed
    }
}
