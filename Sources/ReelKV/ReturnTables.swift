import KVCodec

/// How many nodes of each class were used again at which age, and how many were still waiting at it: and from that, what a node is worth
/// keeping.
package struct ReturnTables: Equatable, Sendable {
    /// By class and bin of age, used again at that age.
    private(set) var returned = [Float](repeating: 0, count: cells)
    /// Not used again up to that age, and lost sight of.
    private(set) var lost = [Float](repeating: 0, count: cells)
    private var sum: Float = 0

    package init() {}

    package static let cells = ReturnClass.count * AgeBin.count
    /// Beyond so many observations, old ones count half.
    private static let sumMax: Float = 131_072

    package static func cell(_ reuseClass: UInt8, _ age: UInt64) -> Int { Int(reuseClass) * AgeBin.count + AgeBin.of(age) }

    package mutating func noteReturn(of reuseClass: UInt8, after age: UInt64) {
        returned[Self.cell(reuseClass, age)] += 1
        sum += 1
    }

    package mutating func noteLoss(of reuseClass: UInt8, at age: UInt64) {
        lost[Self.cell(reuseClass, age)] += 1
        sum += 1
    }

    mutating func fade() {
        guard sum > Self.sumMax else { return }
        sum /= 2
        for cell in 0..<Self.cells {
            returned[cell] /= 2
            lost[cell] /= 2
        }
    }

    // MARK: - What a node is worth

    /// What a node of each class is worth at each age: over the best horizon, the probability of a use per access of the store that the
    /// node is held for. It is Gittins's index of the node, held until it is used or the horizon ends.
    ///
    /// - Parameter waiting: nodes that were not used again yet, by class and age.
    package func worth(waiting: [Float]) -> [Double] {
        let bins = 0..<AgeBin.count
        var worth = [Double](repeating: 0, count: Self.cells)
        var coarse = [Double](repeating: Self.firstHazard, count: AgeBin.count)
        var once = coarse
        for uses in 0..<ReturnClass.usesMax {
            // a class leans on all of as many uses, those on the ones of one use less, as long as it has seen little
            var sums = Observations()
            for level in 0..<ReturnClass.levels { sums.add(observations(uses * ReturnClass.levels + level, waiting)) }
            coarse = sums.hazard(leaning: uses == 0 ? 5 : 50, on: coarse)
            if uses == 0 { once = coarse }
            for level in 0..<ReturnClass.levels {
                let index = uses * ReturnClass.levels + level
                let hazard = observations(index, waiting).hazard(leaning: 300, on: coarse)
                for bin in bins { worth[index * AgeBin.count + bin] = Self.bestRate(hazard, from: bin) }
            }
        }
        let tail = Int(ReturnClass.tail)
        let hazard = observations(tail, waiting).hazard(leaning: 50, on: once)
        for bin in bins { worth[tail * AgeBin.count + bin] = Self.bestRate(hazard, from: bin) }
        return worth
    }

    /// A node's chance to be used within a bin of age that it reaches, before anything was observed.
    private static let firstHazard = 0.02

    private func observations(_ index: Int, _ waiting: [Float]) -> Observations {
        var found = Observations()
        for bin in 0..<AgeBin.count {
            let cell = index * AgeBin.count + bin
            found.returned[bin] = Double(returned[cell])
            found.gone[bin] = Double(lost[cell] + waiting[cell])
        }
        return found
    }

    private struct Observations {
        var returned = [Double](repeating: 0, count: AgeBin.count)
        /// Seen up to this age and no further.
        var gone = [Double](repeating: 0, count: AgeBin.count)

        mutating func add(_ other: Observations) {
            for bin in 0..<AgeBin.count {
                returned[bin] += other.returned[bin]
                gone[bin] += other.gone[bin]
            }
        }

        /// The chance, per bin, that a node which reaches it is used in it, by the actuaries' estimate; `prior` counts as so many
        /// observations.
        func hazard(leaning weight: Double, on prior: [Double]) -> [Double] {
            var hazard = prior
            var atRisk = 0.0
            for bin in (0..<AgeBin.count).reversed() {
                atRisk += returned[bin]
                hazard[bin] = (returned[bin] + weight * prior[bin]) / (atRisk + gone[bin] / 2 + weight)
                atRisk += gone[bin]
            }
            return hazard
        }
    }

    private static func bestRate(_ hazard: [Double], from first: Int) -> Double {
        var best = 0.0
        var survival = 1.0
        var used = 0.0
        var time = 0.0
        for bin in first..<AgeBin.count {
            let use = survival * hazard[bin]
            used += use
            time += (AgeBin.starts[bin + 1] - AgeBin.starts[bin]) * (survival - use / 2)
            survival -= use
            best = max(best, used / time)
        }
        return best
    }
}

// MARK: - On the disk

extension ReturnTables {
    private static let formatVersion: UInt16 = 1
    private static var header: ReturnTablesHeader {
        ReturnTablesHeader(
            magic: magic, formatVersion: formatVersion, classCount: UInt16(ReturnClass.count),
            binCount: UInt16(AgeBin.count), binsPerOctave: UInt16(AgeBin.perOctave), advantage: 0, checksum: 0)
    }
    /// The bytes 89 52 4B 56 52 45 54 0A.
    private static let magic: UInt64 = 0x0A54_4552_564B_5289
    private static let byteCount = ReturnTablesHeader.byteCount + 2 * cells * 4
    private static let checksumOffset = 56

    /// The bytes that are kept in the index. Nodes that wait for their next use count as lost sight of.
    package func encoded(advantage: Double, waiting: [Float]) -> [UInt8] {
        var header = Self.header
        header.advantage = advantage
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.byteCount)
        bytes.append(header)
        for value in returned { bytes.appendLittleEndian(value.bitPattern) }
        for (value, more) in zip(lost, waiting) { bytes.appendLittleEndian((value + more).bitPattern) }
        let checksum = bytes.withUnsafeBytes { Self.checksum($0) }
        guard let checksum else { return [] }
        bytes.withUnsafeMutableBytes { $0.storeLittleEndian(checksum, at: Self.checksumOffset) }
        return bytes
    }

    /// nil for bytes that are no tables of this form, or are damaged: learning begins anew.
    package static func decode(_ bytes: UnsafeRawBufferPointer) -> (tables: ReturnTables, advantage: Double)? {
        guard bytes.count == byteCount, let found = ReturnTablesHeader(at: 0, of: bytes) else { return nil }
        var expected = header
        expected.advantage = found.advantage
        guard let checksum = checksum(bytes) else { return nil }
        expected.checksum = checksum
        guard found == expected, found.advantage.isFinite else { return nil }
        var tables = ReturnTables()
        for cell in 0..<cells {
            let offset = ReturnTablesHeader.byteCount + cell * 4
            tables.returned[cell] = bytes.loadLittleEndian(at: offset, as: Float.self)
            tables.lost[cell] = bytes.loadLittleEndian(at: offset + cells * 4, as: Float.self)
        }
        let all = tables.returned + tables.lost
        guard all.allSatisfy({ $0 >= 0 && $0 <= sumMax * 4 }) else { return nil }
        tables.sum = all.reduce(0, +)
        return (tables, found.advantage)
    }

    private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64? {
        try? Checksum.of(bytes, 0..<checksumOffset, then: ReturnTablesHeader.byteCount..<bytes.count)
    }
}
