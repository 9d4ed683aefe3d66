import KVCodec

// Comparing a query's tokens with a stored page's, and the order in which the index keeps a page's children so that the
// longest common prefix is found next to where the query would stand.

extension TokenSequence {
    /// How many tokens, of those from `start` on and at most `limit`, agree with the first ones of canonical `bytes`.
    /// Token `start` must be the first token of a page. `self` is a whole sequence, so that default positions are indices.
    func commonPrefix(from start: Int, limit: Int, canonical bytes: UnsafeRawBufferPointer) throws -> Int {
        var reader = CanonicalTokens(bytes)
        var agreed = 0
        var open = true  // no disagreement yet
        var storedPositions: (streams: Int, count: Int, values: UnsafeRawBufferPointer)?
        while let run = try reader.next() {
            switch run {
            case .text(let width, let packed, let count):
                guard open else { continue }
                let matched = textPrefix(at: start + agreed, limit: min(count, limit - agreed), packed, width: width)
                agreed += matched
                open = matched == count && agreed < limit
            case .media(let digest, let offset, let count):
                guard open else { continue }
                let matched = mediaPrefix(at: start + agreed, limit: min(count, limit - agreed), digest, offset: offset)
                agreed += matched
                open = matched == count && agreed < limit
            case .positions(let streams, let count, let values):
                storedPositions = (streams, count, values)
                guard count >= agreed else { throw CanonicalTokens.damaged }
            }
        }
        return positionPrefix(from: start, limit: agreed, stored: storedPositions)
    }

    private func textPrefix(at first: Int, limit: Int, _ packed: UnsafeRawBufferPointer, width: Int) -> Int {
        var matched = 0
        forEachRun(in: first..<first + limit) { run in
            guard case .text(let range) = run, range.lowerBound == first + matched else { return }
            while matched < range.upperBound - first,
                ids[first + matched] == CanonicalTokens.id(matched, width: width, of: packed)
            {
                matched += 1
            }
        }
        return matched
    }

    private func mediaPrefix(at first: Int, limit: Int, _ digest: Digest, offset: Int) -> Int {
        var matched = 0
        forEachRun(in: first..<first + limit) { run in
            guard case .media(digest, let runOffset, let range) = run, range.lowerBound == first + matched,
                runOffset == offset + matched
            else { return }
            matched = range.upperBound - first
        }
        return matched
    }

    private func positionPrefix(
        from start: Int, limit: Int, stored: (streams: Int, count: Int, values: UnsafeRawBufferPointer)?
    ) -> Int {
        guard positions != nil || stored != nil else { return limit }
        if let stored, let positions, stored.streams != positions.count { return 0 }
        let streams = stored?.streams ?? positions?.count ?? 1
        for index in 0..<limit {
            for stream in 0..<streams {
                let query = positions?[stream][start + index] ?? Int32(truncatingIfNeeded: start + index)
                let kept =
                    stored.map { $0.values.loadLittleEndian(at: 4 * (stream * $0.count + index), as: Int32.self) }
                    ?? Int32(truncatingIfNeeded: start + index)
                if query != kept { return index }
            }
        }
        return limit
    }

    /// Tokens that take part in a child's key. Children that agree in all of them stand together and are all compared.
    static let orderedTokensMax = 112

    /// Appends the order key of `range`: four big-endian bytes a token. A text token gives its id; a placeholder gives 31 bits
    /// mixed from its media's digest and offset, with the top bit set. It only orders: agreement is always checked on the tokens.
    func appendOrderKey(of range: Range<Int>, to key: inout [UInt8]) {
        let end = min(range.upperBound, range.lowerBound + Self.orderedTokensMax)
        forEachRun(in: range.lowerBound..<end) { run in
            switch run {
            case .text(let range):
                for index in range { key.appendBigEndian(UInt32(bitPattern: ids[index])) }
            case .media(let digest, let offset, let range):
                let seed = digest.withUnsafeBytes { $0.loadLittleEndian(at: 0, as: UInt64.self) }
                for index in 0..<range.count {
                    var mixer = SplitMix64(seed: seed &+ UInt64(offset + index))
                    key.appendBigEndian(UInt32(truncatingIfNeeded: mixer.next() >> 33) | 1 << 31)
                }
            }
        }
    }
}

extension [UInt8] {
    mutating func appendBigEndian(_ value: UInt32) {
        append(UInt8(truncatingIfNeeded: value >> 24))
        append(UInt8(truncatingIfNeeded: value >> 16))
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }
}
