/// Tables of angles that were used before.
///
/// A restore goes through all pages of a prefix once per layer, and every time needs the tables it needed for the layer
/// before. Were the oldest table dropped when the cache is full, a prefix a little too long would never find one; so the
/// newest is.
struct RotaryCache {
    /// 4 MB of cosines and sines: 8192 tokens of 64 pairs.
    static let floatsMax = 1 << 20

    private struct Entry {
        let table: RotaryTable
        let positions: PagePositions
        let tokens: Range<Int>
    }

    private var entries: [Entry] = []
    private var floats = 0

    var byteCount: Int { 4 * floats }

    mutating func table(_ parameters: RotaryParameters, positions: PagePositions, tokens: Range<Int>) -> RotaryTable {
        for entry in entries
        where entry.tokens == tokens && entry.positions == positions && entry.table.parameters == parameters {
            return entry.table
        }
        let table = RotaryTable(parameters: parameters, positions: positions, tokens: tokens)
        floats += table.floatCount
        while floats > Self.floatsMax, let newest = entries.popLast() { floats -= newest.table.floatCount }
        entries.append(Entry(table: table, positions: positions, tokens: tokens))
        return table
    }
}
