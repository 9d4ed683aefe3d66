import LMDB

extension Store {
    /// Keeps a video's or session's pages from being evicted, or lets them be.
    ///
    /// - Returns: whether that changed anything.
    /// - Throws: `StoreError` with the codes `notFound`, `readOnly`.
    @discardableResult
    public func setPinned(_ isPinned: Bool, _ name: SequenceName) throws -> Bool {
        try write { transaction in
            var (_, key, head) = try requiredHead(name, in: transaction)
            guard head.record.isPinned != isPinned else { return false }
            head.record.isPinned = isPinned
            try index.replaceHead(name.kind, key, with: head, in: transaction)
            return true
        }
    }
}
