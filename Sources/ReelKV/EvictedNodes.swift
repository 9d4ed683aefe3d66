/// Remembers of evicted nodes how often and when last they were used, should they be stored anew. Sets of four; the one unused for
/// longest makes room. 16 bytes each.
struct EvictedNodes: Sendable {
    struct Memory: Hashable, Sendable {
        var uses: Int
        var lastAccess: UInt64
    }

    private struct Slot {
        var tag: UInt32 = 0
        /// 0 when free.
        var uses: UInt32 = 0
        var lastAccess: UInt64 = 0
    }

    private var slots: [Slot] = []
    private static let ways = 4
    /// Slots at most: 4 MiB.
    private static let slotsMax = 1 << 18

    /// Makes room for the memory of four times as many nodes as the store holds.
    mutating func fit(to nodes: Int) {
        var count = 1 << 12
        while count < Self.slotsMax, count < nodes { count <<= 1 }
        count = min(Self.slotsMax, count * Self.ways)
        guard count > slots.count else { return }
        let old = slots
        slots = [Slot](repeating: Slot(), count: count)
        for slot in old where slot.uses > 0 { put(slot) }
    }

    func memory(of key: UInt64) -> Memory? {
        guard !slots.isEmpty else { return nil }
        let tag = UInt32(truncatingIfNeeded: key)
        return set(tag).map { slots[$0] }.first { $0.uses > 0 && $0.tag == tag }
            .map { Memory(uses: Int($0.uses), lastAccess: $0.lastAccess) }
    }

    mutating func note(_ key: UInt64, uses: Int, lastAccess: UInt64) {
        guard !slots.isEmpty else { return }
        put(Slot(tag: UInt32(truncatingIfNeeded: key), uses: UInt32(clamping: max(uses, 1)), lastAccess: lastAccess))
    }

    private mutating func put(_ slot: Slot) {
        let set = set(slot.tag)
        var chosen = set.lowerBound
        for index in set {
            if slots[index].uses > 0, slots[index].tag == slot.tag {
                chosen = index
                break
            }
            if slots[index].lastAccess < slots[chosen].lastAccess { chosen = index }
        }
        slots[chosen] = slot
    }

    private func set(_ tag: UInt32) -> Range<Int> {
        let first = Int(tag) & (slots.count / Self.ways - 1)
        return first * Self.ways..<(first + 1) * Self.ways
    }
}
