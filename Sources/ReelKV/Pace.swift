/// Holds work to a rate.
struct Pace {
    private let bytesPerSecondMax: Int?
    private let start = ContinuousClock.now
    private var done = 0

    /// Seconds to wait at a time, so that whoever cancels need not wait for longer.
    private static let napSeconds = 0.2

    init(bytesPerSecondMax: Int?) { self.bytesPerSecondMax = bytesPerSecondMax }

    /// Waits until so many bytes more are within the rate.
    ///
    /// - Parameter progress: called now and while it waits; an error thrown from it ends the waiting.
    mutating func didDo(_ bytes: Int, progress: () throws -> Void) throws {
        done += bytes
        try progress()
        guard let bytesPerSecondMax else { return }
        let due = Double(done) / Double(bytesPerSecondMax)
        while case let left = due - (ContinuousClock.now - start) / .seconds(1), left > 0 {
            Platform.sleep(seconds: min(left, Self.napSeconds))
            try progress()
        }
    }
}
