import KVCodec
import LMDB
import Locking

/// A page image that can be read whatever happens to the store: its volume is open, and a file that is open stays readable when
/// it is removed.
struct HeldPage {
    /// The segment, with the encoding where it lies now.
    let segment: PageSegment
    let volume: Volume
    let memo = ImageMemo()
}

/// A page's image as it was parsed last, so that a restore of many layers parses it once.
final class ImageMemo: Sendable {
    private let image = Mutex<StoredImage?>(nil)

    func parse(_ bytes: UnsafeRawBufferPointer, keys: KeyRing) throws -> StoredImage {
        if let known = image.withLock({ $0 }) { return try StoredImage(bytes, keys: keys, known: known, bringIn: true) }
        let parsed = try StoredImage(bytes, keys: keys, bringIn: true)
        image.withLock { $0 = parsed }
        return parsed
    }
}

/// Keeps the pages of a prefix readable in this process: moved, re-encoded, evicted or deleted, they are read as they were.
///
/// The disk does not get the space of a volume back while a process holds it open, so let go soon.
package final class HeldPages: Sendable {
    private let volumes: [Volume]

    init(_ pages: [HeldPage]) {
        volumes = Array(Dictionary(pages.map { ($0.volume.id, $0.volume) }) { first, _ in first }.values)
    }
}

extension Store {
    /// Keeps the pages of `prefix` readable until the result is let go: for reading them by more than one restore.
    ///
    /// - Throws: `StoreError.pageUnavailable` when one is gone already.
    package func hold(_ prefix: StoredPrefix) throws -> HeldPages { HeldPages(try hold(prefix.segments)) }

    /// Finds where the images of segments lie now, and opens their volumes. After that nothing can be taken away from who reads them.
    ///
    /// - Throws: `StoreError.pageUnavailable`, as ``hold(_:)-(PageSegment)``.
    func hold(_ segments: [PageSegment]) throws -> [HeldPage] {
        var open: [UInt64: Volume] = [:]
        return try segments.map { segment in
            if let volume = open[segment.encoding.volumeId] { return HeldPage(segment: segment, volume: volume) }
            let page = try hold(segment)
            open[page.volume.id] = page.volume
            return page
        }
    }

    /// How often a page is looked for again before its reader gives up. Each time it must have been moved since.
    private static var movesMax: Int { 16 }

    /// Finds where a segment's image lies now, and opens its volume. Where its volume is lost, all its pages are quarantined at once.
    ///
    /// - Throws: `StoreError.pageUnavailable` when the page was deleted, evicted or re-encoded since it was matched, and when its volume
    ///   is lost.
    func hold(_ segment: PageSegment) throws -> HeldPage {
        var segment = segment
        for _ in 0..<Self.movesMax {
            let loss: StoreError
            do {
                let volume = try StoreError.translating { try volumes.volume(segment.encoding.volumeId) }
                return HeldPage(segment: segment, volume: volume)
            } catch let error as StoreError where error.code == .pageUnavailable || error.code == .damaged {
                loss = error
            }
            // A volume goes after the index has let go of its pages. So the index, read after the file was missed, tells a page
            // that was moved from one that is lost.
            let current = try read { try index.currentEncoding(segment.encoding, of: segment.hash, in: $0) }
            if current.location == segment.encoding.location {
                try? write { try index.quarantine(volume: current.volumeId, in: $0) }
                throw StoreError(.pageUnavailable, "\(loss.message) from now on: compute and store them again")
            }
            segment.encoding = current
        }
        throw StoreError(.pageUnavailable, "the page of tokens \(segment.range) is moved again and again: try once more")
    }

    /// Calls `body` with a held page's parsed image. An image that is damaged, or not where the index says, is quarantined: it counts
    /// as absent from then on, so that no match offers it again and a new write stores it anew.
    ///
    /// - Parameter readsAhead: whether `body` reads all of the image.
    func withImage<R>(of page: HeldPage, readsAhead: Bool = true, _ body: (StoredImage) throws -> R) throws -> R {
        let segment = page.segment
        let problem: String
        do {
            let result = try StoreError.translating {
                try page.volume.withImage(segment.encoding.pageId, readsAhead: readsAhead) { bytes in
                    let stored = try page.memo.parse(bytes, keys: index.keyRing)
                    let image = stored.image
                    // the chain hash names all of it, but a first token that is off would turn the keys by wrong angles
                    guard image.identity.chainHash == segment.hash,
                        image.identity.firstToken == segment.pageFirstToken + segment.nodeTokens.lowerBound,
                        image.tokenCount == segment.nodeTokens.count
                    else {
                        throw CodecError(.damaged, "it is another page's image")
                    }
                    return try body(stored)
                }
            }
            if let result { return result }
            problem = "gone (it is not in its volume)"
        } catch let error as CodecError where error.code == .damaged || error.code == .notAPage {
            problem = "damaged (\(error))"
        } catch let error as StoreError where error.code == .damaged {
            problem = "damaged (\(error))"
        }
        let encoding = segment.encoding
        let current = try read { try index.currentEncoding(encoding, of: segment.hash, in: $0) }
        guard current.location == encoding.location else {
            throw StoreError(.pageUnavailable, "the page of tokens \(segment.range) was stored anew meanwhile: match again")
        }
        try? write { try index.quarantine(segment.hash, volume: encoding.volumeId, page: encoding.pageId, in: $0) }
        throw StoreError(
            .pageUnavailable,
            "the page of tokens \(segment.range) is \(problem) and counts as not stored from now on; restore the tokens before it, or compute them"
        )
    }

    /// Calls `body` with the whole of a segment's image, wherever it lies now.
    func withImage<R>(of segment: PageSegment, _ body: (PageImage) throws -> R) throws -> R {
        try withImage(of: try hold(segment)) { try $0.withWhole(body) }
    }
}

extension Index {
    /// What to read in place of an encoding that was found earlier: the same, wherever it lies now, or a better one of its profile.
    ///
    /// - Throws: `StoreError.pageUnavailable` when there is none. Never answers with something worse than was found.
    func currentEncoding(
        _ known: EncodingRecord, of hash: Digest, in transaction: borrowing some Transaction & ~Copyable
    ) throws -> EncodingRecord {
        let encodings = try nodes.withValue(hash, in: transaction) { bytes in
            let node = try NodeView(bytes)
            return (0..<node.encodingCount).map { node.encoding($0) }
        }
        guard let encodings else {
            throw StoreError(.pageUnavailable, "a page of this prefix was deleted or evicted meanwhile: match again")
        }
        if let current = encodings.first(where: { $0.isAsGood(as: known) }) { return current }
        let isQuarantined = encodings.contains { $0.profileId == known.profileId && $0.isQuarantined }
        throw StoreError(
            .pageUnavailable,
            isQuarantined
                ? "a page of this prefix was found damaged meanwhile: match again"
                : "a page of this prefix was re-encoded meanwhile: match again")
    }
}

extension EncodingRecord {
    /// Whether it may be read where `known` was promised: it is `known`, wherever it lies, or took its place for being better.
    func isAsGood(as known: EncodingRecord) -> Bool {
        !isQuarantined && profileId == known.profileId && keyError <= known.keyError && valueError <= known.valueError
            && completeFrom <= known.completeFrom && (known.isInherited || !isInherited)
    }
}
