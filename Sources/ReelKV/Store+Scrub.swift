import KVCodec
import LMDB

/// How to scrub.
public struct ScrubOptions: Hashable, Sendable {
    /// Read no faster than this; nil for as fast as it goes.
    public var bytesPerSecondMax: Int?

    public init() {}
}

/// What a scrub, or a step of one, did.
public struct ScrubReport: Hashable, Sendable {
    public var pages = 0
    public var bytes = 0
    /// Pages that failed a checksum, and are quarantined.
    public var damaged = 0
    /// Whether the last volume's end is reached: the next scrub begins a new round.
    public var isRoundFinished = false
}

/// What scrubs have done since the store was created.
public struct ScrubStatistics: Hashable, Sendable {
    public var pages = 0
    public var bytes = 0
    public var damaged = 0
    /// Unix time at which the last whole round ended; nil when none has.
    public var finishedSeconds: Int64?
    /// Unix time at which the round under way began; nil when none is.
    public var startedSeconds: Int64?
}

extension Store {
    static let scrubLockName = "scrub.lock"
    private static let scrubStepBytes = 16 << 20

    /// Goes on with the round under way, or begins one, to its end: reads every page image in the order of the disk, and quarantines those
    /// that fail a checksum. Where it stands is written down, so that a scrub that was interrupted goes on from there.
    ///
    /// - Parameter progress: called after each step and while it waits to keep to the rate, with no lock held that others wait for. An error
    ///   thrown from it ends the scrub.
    /// - Throws: `StoreError` with the codes `inUse` while another process scrubs, `invalidArgument`, `readOnly`, `inputOutput`.
    public func scrub(
        _ options: ScrubOptions = ScrubOptions(), progress: ((ScrubReport) throws -> Void)? = nil
    ) throws -> ScrubReport {
        if let rate = options.bytesPerSecondMax, rate <= 0 {
            throw StoreError(.invalidArgument, "a scrub reads at least one byte a second, not \(rate)")
        }
        var report = ScrubReport()
        var pace = Pace(bytesPerSecondMax: options.bytesPerSecondMax)
        while !report.isRoundFinished {
            guard let step = try scrubStep(bytesMax: min(Self.scrubStepBytes, options.bytesPerSecondMax ?? .max)) else {
                throw StoreError(.inUse, "another process is scrubbing the store \(path): let it finish")
            }
            report.add(step)
            try pace.didDo(step.bytes) { try progress?(report) }
        }
        return report
    }

    /// A bounded piece of a scrub, for an engine that calls it in the background: reads at most `bytesMax` bytes of images, or one.
    ///
    /// - Returns: nil while another process is at it.
    public func scrubStep(bytesMax: Int) throws -> ScrubReport? {
        try checkWritable()
        guard let lock = try FileLock(path: folder + "/" + Self.scrubLockName) else { return nil }
        defer { withExtendedLifetime(lock) {} }
        var record = try read { try index.scrub(in: $0) }
        if record.startedSeconds == 0 { record.startedSeconds = Platform.unixSeconds() }
        let volumes = try read { try index.allVolumes(in: $0) }.map(\.id)
        var report = ScrubReport()
        while let id = volumes.first(where: { $0 >= max(record.volumeId, 1) }), report.bytes < bytesMax {
            if record.volumeId != id { (record.volumeId, record.pageId) = (id, 0) }
            let isAtEnd = try scrub(id, after: &record.pageId, bytesMax: bytesMax, into: &report)
            // the next image is more than is left
            guard isAtEnd else { break }
            (record.volumeId, record.pageId) = (id + 1, 0)
        }
        if volumes.allSatisfy({ $0 < record.volumeId }) {
            report.isRoundFinished = true
            record.finishedSeconds = Platform.unixSeconds()
            (record.startedSeconds, record.volumeId, record.pageId) = (0, 0, 0)
        }
        record.checkedPages &+= UInt64(report.pages)
        record.checkedBytes &+= UInt64(report.bytes)
        record.damagedPages &+= UInt64(report.damaged)
        try write { try index.putFixedRecord(Index.scrubKey, record, in: $0) }
        return report
    }

    /// Reads on in a volume.
    ///
    /// - Returns: whether its end is reached, or it cannot be read: `verify` says why.
    private func scrub(_ id: UInt64, after page: inout UInt64, bytesMax: Int, into report: inout ScrubReport) throws -> Bool {
        guard let volume = try? volumes.volume(id) else { return true }
        var damaged: [VolumeSet.Location] = []
        var isAtEnd = true
        var last = page
        try StoreError.translating {
            try volume.readImages(after: page) { page, image in
                guard report.bytes == 0 || report.bytes + image.count <= bytesMax else {
                    isAtEnd = false
                    return false
                }
                let wasInMemory = Environment.isInMemory(image)
                Environment.adviseWillNeed(image)
                report.pages += 1
                report.bytes += image.count
                if !Self.isSound(image) { damaged.append(VolumeSet.Location(volume: id, page: page)) }
                if !wasInMemory { Environment.adviseCold(image) }
                last = page
                return true
            } then: {
            }
        }
        page = last
        if !damaged.isEmpty { report.damaged += try quarantine(damaged, inVolume: id) }
        return isAtEnd
    }

    private static func isSound(_ bytes: UnsafeRawBufferPointer) -> Bool {
        do {
            try StoredImage.verifyChecksum(of: bytes)
            return true
        } catch {
            // what a newer version wrote is not for this one to judge
            return error.code == .newerFormat
        }
    }

    /// Marks what lies at damaged places. The images cannot be believed to say whose they are, so it is looked for among all nodes.
    ///
    /// - Returns: how many encodings there are that were not marked before.
    private func quarantine(_ places: [VolumeSet.Location], inVolume id: UInt64) throws -> Int {
        let places = Set(places)
        return try write { transaction in
            let found = try index.encodings(inVolume: id, in: transaction)
                .filter { places.contains($0.encoding.location) && !$0.encoding.isQuarantined }
            for (hash, encoding) in found {
                try index.quarantine(hash, volume: encoding.volumeId, page: encoding.pageId, in: transaction)
            }
            return found.count
        }
    }
}

extension ScrubReport {
    fileprivate mutating func add(_ step: ScrubReport) {
        pages += step.pages
        bytes += step.bytes
        damaged += step.damaged
        isRoundFinished = step.isRoundFinished
    }
}

extension ScrubStatistics {
    init(_ record: ScrubRecord) {
        pages = Int(clamping: record.checkedPages)
        bytes = Int(clamping: record.checkedBytes)
        damaged = Int(clamping: record.damagedPages)
        finishedSeconds = record.finishedSeconds == 0 ? nil : record.finishedSeconds
        startedSeconds = record.startedSeconds == 0 ? nil : record.startedSeconds
    }
}

extension Index {
    static let scrubKey = "scrub"

    /// How far the scrub is. A record that is damaged says no more than a missing one.
    func scrub(in transaction: borrowing some Transaction & ~Copyable) throws -> ScrubRecord {
        let found: ScrubRecord?? = try? fixedRecord(Self.scrubKey, in: transaction)
        return (found ?? nil)
            ?? ScrubRecord(
                volumeId: 0, pageId: 0, startedSeconds: 0, finishedSeconds: 0, checkedPages: 0, checkedBytes: 0, damagedPages: 0)
    }
}
