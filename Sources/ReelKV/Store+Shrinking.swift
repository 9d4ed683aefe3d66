import LMDB

extension Store {
    /// Makes the index file as small as its content allows, while this and other processes read and write. They follow to the new
    /// file by themselves; the former one's space is free when all that have it open have done so.
    ///
    /// - Parameter bytes: what there is to gain at least; nothing happens for less.
    /// - Returns: the index file's size in bytes, before and after.
    /// - Throws: `StoreError` with the codes `readOnly`; `noSpace` and `inputOutput`, and then the index is what it was.
    @discardableResult
    package func shrinkIndex(ifGaining bytes: Int = 1) throws -> (before: Int, after: Int) {
        try checkWritable()
        return try StoreError.translating { try index.shrink(ifGaining: bytes) }
    }
}
