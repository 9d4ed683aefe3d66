import ReelKV

/// What a rotating cache says of itself: mlx-lm's `RotatingKVCache` keeps the last `maxSize` tokens and overwrites the oldest.
struct RotatingState: Equatable {
    /// First tokens that are never overwritten.
    var keep: Int
    var maxSize: Int
    /// Tokens by which its memory grows.
    var step: Int
    /// Tokens that the cache has seen.
    var offset: Int
    /// Row behind the newest token's.
    var nextRow: Int

    /// mlx-lm's own default.
    static let defaultStep = 256

    init(maxSize: Int, offset: Int, nextRow: Int) {
        keep = 0
        self.maxSize = maxSize
        step = Self.defaultStep
        self.offset = offset
        self.nextRow = nextRow
    }

    /// nil when `metaState` is not a rotating cache's.
    init?(metaState: [String]) {
        let numbers = metaState.compactMap { Int($0) }
        guard metaState.count == 5, numbers.count == 5, numbers.allSatisfy({ $0 >= 0 }) else { return nil }
        (keep, maxSize, step, offset, nextRow) = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
    }

    var metaState: [String] { [keep, maxSize, step, offset, nextRow].map { String($0) } }

    /// Where the tokens lie among `rows` rows, oldest first: the rows from `nextRow` on, then those before it.
    func order(rows: Int) -> (older: Range<Int>, newer: Range<Int>) {
        nextRow < rows && nextRow < offset ? (nextRow..<rows, 0..<nextRow) : (0..<0, 0..<min(nextRow, rows))
    }
}
