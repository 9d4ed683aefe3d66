import KVCodec
import LMDB

extension Store {
    /// Checks that the store is what it should be: every record, the references between them, and the page images. Other processes may
    /// go on reading and writing.
    ///
    /// - Parameters:
    ///   - depth: how much of the pages is looked at.
    ///   - quarantining: whether to mark damaged pages, so that they count as absent from then on. Nothing else is ever changed;
    ///     ``repair(depth:isDryRun:progress:)`` does that.
    ///   - progress: called with the pages checked so far and all of them.
    public func verify(
        depth: VerificationDepth = .tensors, quarantining: Bool = false,
        progress: ((_ done: Int, _ total: Int) -> Void)? = nil
    ) throws -> VerificationReport {
        if quarantining { try checkWritable() }
        let check = try checkedAll(depth: depth, progress: progress)
        if quarantining { try quarantine(check.damaged) }
        return check.index.report
    }

    func checkedAll(depth: VerificationDepth, progress: ((Int, Int) -> Void)? = nil) throws -> PageCheck {
        var check = PageCheck(self, try checkedIndex())
        try check.checkVolumes()
        try check.checkFiles()
        if depth != .index { try check.checkPages(decoding: depth == .tensors, progress: progress) }
        return check
    }

    /// The index alone, as of now.
    func checkedIndex() throws -> IndexCheck {
        try readWithIdentity { IndexCheck(index, pageTokens: pageTokens, identity: $0, in: $1) }
    }

    /// Calls `body` with a snapshot of the index and the identity that goes with it; nil where that cannot be read.
    func readWithIdentity<R>(_ body: (Identity?, borrowing ReadTransaction) throws -> R) throws -> R {
        var attempts = 0
        while true {
            attempts += 1
            let result = try read { transaction -> R? in
                FaultPoint.reached("identity sought")
                let identity = try? Identity(in: folder)
                // The file has what a transaction adds before that is committed, and what one removes until after: of the time of this
                // snapshot it has everything. If others commit meanwhile, it may be of a later one.
                guard try attempts == Self.identityAttempts || transaction.id == read({ $0.id }) else { return nil }
                return try body(identity, transaction)
            }
            if let result { return result }
        }
    }

    private static var identityAttempts: Int { 100 }

    func quarantine(_ pages: [PageCheck.Damaged]) throws {
        if pages.isEmpty { return }
        try write { transaction in
            for page in pages {
                try index.quarantine(page.hash, volume: page.location.volume, page: page.location.page, in: transaction)
            }
        }
    }
}
