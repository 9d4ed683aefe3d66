import LMDB
import Testing

@Suite("Iteration")
struct IterationTests {
    let directory: TemporaryDirectory
    let environment: Environment
    let database: Database<RawBytes, BigEndianUInt32>

    init() throws {
        directory = try TemporaryDirectory()
        environment = try Environment.open(at: directory.file(), configuration: .small())
        database = try environment.database(named: "raw", keys: RawBytes.self, values: BigEndianUInt32.self, creating: true)
    }

    private func keys(in range: KeyRange<RawBytes> = .all, reversed: Bool = false) throws -> [[UInt8]] {
        try environment.read { transaction in
            var keys: [[UInt8]] = []
            try database.forEach(in: range, reversed: reversed, in: transaction) { key, _ in
                keys.append(key)
                return .continue
            }
            return keys
        }
    }

    private func fill(_ keys: some Sequence<[UInt8]>) throws {
        try environment.write { transaction in
            for (index, key) in keys.enumerated() { try database.put(key, UInt32(index), in: transaction) }
        }
    }

    /// Few different bytes, the extremes among them, so that prefixes and neighbours are common.
    private static func randomKey(using random: inout SeededGenerator) -> [UInt8] {
        (0..<Int.random(in: 1...4, using: &random)).map { _ in [0, 1, 0x7f, 0xfe, 0xff].randomElement(using: &random) ?? 0 }
    }

    /// Every kind of range, and what it should hold.
    private static func randomRange(
        using random: inout SeededGenerator
    ) -> (range: KeyRange<RawBytes>, holds: @Sendable ([UInt8]) -> Bool) {
        let a = randomKey(using: &random)
        let b = randomKey(using: &random)
        let isBefore = { @Sendable (x: [UInt8], y: [UInt8]) in x.lexicographicallyPrecedes(y) }
        switch Int.random(in: 0..<8, using: &random) {
        case 0: return (.all, { _ in true })
        case 1: return (.from(a), { !isBefore($0, a) })
        case 2: return (.after(a), { isBefore(a, $0) })
        case 3: return (.upTo(a), { isBefore($0, a) })
        case 4: return (.through(a), { !isBefore(a, $0) })
        case 5: return (.from(a, upTo: b), { !isBefore($0, a) && isBefore($0, b) })
        case 6: return (.from(a, through: b), { !isBefore($0, a) && !isBefore(b, $0) })
        default: return (.prefix(a), { $0.starts(with: a) })
        }
    }

    @Test("Ranges hold the keys they should, forwards and backwards", arguments: 0..<20)
    func ranges(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        let stored = Set((0..<(seed * 20)).map { _ in Self.randomKey(using: &random) })
        try fill(stored)
        let sorted = stored.sorted { $0.lexicographicallyPrecedes($1) }
        for _ in 0..<100 {
            let (range, holds) = Self.randomRange(using: &random)
            let expected = sorted.filter(holds)
            expectEqual(try keys(in: range), expected)
            expectEqual(try keys(in: range, reversed: true), expected.reversed())
        }
    }

    @Test("Removing a range removes what it holds and nothing else", arguments: 0..<20)
    func rangeDeletion(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        var stored = Set((0..<(seed * 50)).map { _ in Self.randomKey(using: &random) + random.bytes(seed * 20) })
        try fill(stored)
        for _ in 0..<10 {
            let (range, holds) = Self.randomRange(using: &random)
            let expected = stored.count(where: holds)
            expectEqual(try environment.write { try database.delete(in: range, in: $0) }, expected)
            stored = stored.filter { !holds($0) }
            expectEqual(try keys(), stored.sorted { $0.lexicographicallyPrecedes($1) })
        }
    }

    @Test("The nearest entries on both sides, by value and by bytes, match a sorted array", arguments: 0..<10)
    func nearestEntries(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        let stored = Set((0..<(seed * 30)).map { _ in Self.randomKey(using: &random) })
        try fill(stored)
        let sorted = stored.sorted { $0.lexicographicallyPrecedes($1) }
        try environment.read { transaction in
            expectEqual(try database.firstEntry(in: transaction)?.key, sorted.first)
            expectEqual(try database.lastEntry(in: transaction)?.key, sorted.last)
            try database.withCursor(in: transaction) { cursor in
                for _ in 0..<200 {
                    let probe = Self.randomKey(using: &random)
                    let after = sorted.first { !$0.lexicographicallyPrecedes(probe) }
                    let before = sorted.last { !probe.lexicographicallyPrecedes($0) }
                    expectEqual(try database.firstEntry(atOrAfter: probe, in: transaction)?.key, after)
                    expectEqual(try database.lastEntry(atOrBefore: probe, in: transaction)?.key, before)
                    try probe.withUnsafeBytes { probe in
                        expectEqual(
                            try database.withFirstEntry(atOrAfter: probe, in: transaction) { key, _ in Array(key) }, after)
                        expectEqual(
                            try database.withLastEntry(atOrBefore: probe, in: transaction) { key, _ in Array(key) }, before)
                    }
                    // One cursor, moved about, answers as a fresh one does.
                    let following = (try cursor.move(toFirstAtOrAfter: probe), try cursor.entry()?.key)
                    #expect(following == (after != nil, after))
                    let preceding = (try cursor.move(toLastAtOrBefore: probe), try cursor.entry()?.key)
                    #expect(preceding == (before != nil, before))
                    let exact = (try cursor.move(to: probe), cursor.isAtEntry)
                    #expect(exact == (stored.contains(probe), stored.contains(probe)))
                }
            }
        }
    }

    @Test("An empty database has no entries, from whatever side one looks")
    func emptyDatabase() throws {
        expectTrue(try keys().isEmpty)
        expectTrue(try keys(reversed: true).isEmpty)
        expectTrue(try keys(in: .prefix([1]), reversed: true).isEmpty)
        try environment.read { transaction in
            expectEqual(try database.firstEntry(in: transaction)?.key, nil)
            expectEqual(try database.lastEntry(in: transaction)?.key, nil)
            expectEqual(try database.firstEntry(atOrAfter: [0], in: transaction)?.key, nil)
            expectEqual(try database.lastEntry(atOrBefore: [0xff], in: transaction)?.key, nil)
            try database.withCursor(in: transaction) { cursor in
                let (isAtEntry, key, value) = (cursor.isAtEntry, cursor.rawKey, try cursor.rawValue)
                #expect(!isAtEntry && key.isEmpty && value.isEmpty)
                let entry = try cursor.entry()
                #expect(entry == nil)
                let hasMoved = (try cursor.moveToNext(), try cursor.moveToPrevious())
                #expect(hasMoved == (false, false))
            }
        }
    }

    @Test("Bounds at the edges: none, the empty one, all ones, and one that no key can have")
    func edgeBounds() throws {
        let stored: [[UInt8]] = [[0], [0, 0], [0xff], [0xff, 0xff], [0xff, 0xff, 1], Array(repeating: 0xff, count: 511)]
        try fill(stored)
        expectEqual(try keys(in: .prefix([])), stored)
        expectEqual(try keys(in: .from([])), stored)
        expectEqual(try keys(in: .after([])), stored)
        expectTrue(try keys(in: .upTo([])).isEmpty)
        expectTrue(try keys(in: .through([]), reversed: true).isEmpty)
        expectEqual(try keys(in: .prefix([0xff]), reversed: true), stored.dropFirst(2).reversed())
        expectEqual(try keys(in: .prefix([0xff, 0xff])), Array(stored.dropFirst(3)))
        expectEqual(try keys(in: .through(Array(repeating: 0xff, count: 511))), stored)
        expectTrue(try keys(in: .from([5], upTo: [4])).isEmpty)
        expectError(.badValueSize) { try keys(in: .from(Array(repeating: 1, count: 512))) }
    }

    @Test("Iteration stops when it is told to, and when the body throws")
    func stopping() throws {
        try fill((0..<100).map { [UInt8($0)] })
        try environment.read { transaction in
            var seen: [UInt32] = []
            try database.forEach(in: .from([10]), in: transaction) { _, value in
                seen.append(value)
                return seen.count == 3 ? .stop : .continue
            }
            #expect(seen == [10, 11, 12])
            #expect(throws: Interruption.self) {
                try database.forEachRaw(in: .all, in: transaction) { _, _ in throw Interruption() }
            }
        }
    }

    @Test("A cursor removes entries as it goes, and only in a write")
    func cursorDeletion() throws {
        try fill((0..<200).map { [UInt8($0), 1] })
        try environment.write { transaction in
            try database.withCursor(in: transaction) { cursor in
                expectError(.notFound) { try cursor.delete() }
                while try cursor.moveToNext() {
                    if try cursor.entry()?.value.isMultiple(of: 3) == true {
                        try cursor.delete()
                        let isAtEntry = cursor.isAtEntry
                        #expect(!isAtEntry)
                    }
                }
            }
        }
        expectEqual(try keys(), (0..<200).filter { !$0.isMultiple(of: 3) }.map { [UInt8($0), 1] })
        try environment.read { transaction in
            try database.withCursor(in: transaction) { cursor in
                try cursor.moveToFirst()
                expectError(.permissionDenied) { try cursor.delete() }
            }
        }
    }

    @Test("Random changes leave what the same changes leave in a dictionary", arguments: 0..<8)
    func againstModel(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed) + 100)
        var model: [[UInt8]: UInt32] = [:]
        for _ in 0..<20 {
            let before = model
            let isCommitted = Int.random(in: 0..<4, using: &random) > 0
            try? environment.write { transaction in
                for _ in 0..<200 {
                    let key = Self.randomKey(using: &random)
                    if Bool.random(using: &random) {
                        let value = UInt32.random(in: 0...UInt32.max, using: &random)
                        try database.put(key, value, in: transaction)
                        model[key] = value
                    } else {
                        expectEqual(try database.delete(key, in: transaction), (model.removeValue(forKey: key) != nil))
                    }
                }
                if !isCommitted { throw Interruption() }
            }
            if !isCommitted { model = before }
            expectEqual(try environment.read { try database.count(in: $0) }, model.count)
            for (key, value) in model { expectEqual(try environment.read { try database.get(key, in: $0) }, value) }
        }
    }
}
