import KVCodec

/// What the disk may hold of a file: what was flushed, and any of what was written since.
struct TornFile {
    /// Which of the writes since the last flush a crash leaves.
    enum Strategy: CaseIterable {
        case none, all
        /// The first ones, the last of them cut.
        case first
        /// The last ones: they overtook the others.
        case last
        /// Each by itself: kept, lost or cut.
        case any
    }

    private enum Change {
        case write(offset: Int, bytes: [UInt8], isDurable: Bool)
        case length(Int)
    }

    /// What a disk writes whole or not at all.
    static let sectorSize = 512

    private(set) var flushed: [UInt8]
    private var changes: [Change] = []

    init(_ bytes: [UInt8] = []) { flushed = bytes }

    mutating func write(_ bytes: [UInt8], at offset: Int, isDurable: Bool) {
        changes.append(.write(offset: offset, bytes: bytes, isDurable: isDurable))
    }

    mutating func resize(to length: Int) { changes.append(.length(length)) }

    mutating func flush() {
        let all = [Int](repeating: .max, count: changes.count)
        flushed = content(keeping: all)
        changes = []
    }

    /// What a crash leaves.
    func torn(_ strategy: Strategy, _ random: inout SplitMix64) -> [UInt8] {
        var bytes = content(keeping: kept(strategy, &random))
        // A file may have its new length without what it is long for.
        if random.next() % 2 == 0 {
            let length = liveLength
            if length > bytes.count { bytes += [UInt8](repeating: 0, count: length - bytes.count) }
        }
        return bytes
    }

    /// How long the file was when the machine crashed.
    private var liveLength: Int {
        changes.reduce(flushed.count) { length, change in
            switch change {
            case .write(let offset, let bytes, _): max(length, offset + bytes.count)
            case .length(let new): new
            }
        }
    }

    /// How many sectors of each change are kept, from its first.
    private func kept(_ strategy: Strategy, _ random: inout SplitMix64) -> [Int] {
        let count = changes.count
        let bound = count == 0 ? 0 : Int(random.next() % UInt64(count))
        return changes.indices.map { place in
            let change = changes[place]
            if case .write(_, _, isDurable: true) = change { return .max }
            switch strategy {
            case .none: return 0
            case .all: return .max
            case .first: return place < bound ? .max : place > bound ? 0 : Self.sectors(of: change, &random)
            case .last: return place < bound ? 0 : .max
            case .any:
                switch random.next() % 5 {
                case 0, 1: return .max
                case 2, 3: return 0
                default: return Self.sectors(of: change, &random)
                }
            }
        }
    }

    /// A number of a write's sectors, less than it has.
    private static func sectors(of change: Change, _ random: inout SplitMix64) -> Int {
        guard case .write(let offset, let bytes, _) = change else { return 0 }
        let sectors = (offset + bytes.count - 1) / sectorSize - offset / sectorSize + 1
        return Int(random.next() % UInt64(sectors))
    }

    /// The flushed content with some changes. A sector that a change left on the disk has all that was written to it before, too:
    /// the disk gets it as it is in memory.
    private func content(keeping kept: [Int]) -> [UInt8] {
        var newest: [Int: Int] = [:]
        for (place, change) in changes.enumerated() where kept[place] > 0 {
            guard case .write(let offset, let bytes, _) = change, !bytes.isEmpty else { continue }
            let first = offset / Self.sectorSize
            let end = (offset + bytes.count - 1) / Self.sectorSize + 1
            for sector in first..<first + min(kept[place], end - first) { newest[sector] = place }
        }
        var content = flushed
        for (place, change) in changes.enumerated() {
            switch change {
            case .length(let length):
                guard kept[place] > 0 else { continue }
                if length < content.count { content.removeLast(content.count - length) }
                content += [UInt8](repeating: 0, count: length - content.count)
            case .write(let offset, let bytes, _):
                Self.put(bytes, at: offset, into: &content) { newest[$0] ?? -1 >= place }
            }
        }
        return content
    }

    private static func put(_ bytes: [UInt8], at offset: Int, into content: inout [UInt8], where isKept: (Int) -> Bool) {
        var start = offset
        let end = offset + bytes.count
        while start < end {
            let sector = start / sectorSize
            let next = min(end, (sector + 1) * sectorSize)
            defer { start = next }
            guard isKept(sector) else { continue }
            if content.count < next { content += [UInt8](repeating: 0, count: next - content.count) }
            content.replaceSubrange(start..<next, with: bytes[start - offset..<next - offset])
        }
    }
}
