import ReelKV

/// A record is damaged, or reads the same again after it was written anew.
func fuzzRecords(_ bytes: UnsafeRawBufferPointer) throws {
    var input = FuzzInput(bytes)
    let kind = input.pick(IndexRecordKind.allCases)
    try allowing(StoreError.self) {
        guard let written = try kind.rewrite(input.remainder()) else { return }
        // Padding, and text that was not UTF-8, may have changed once.
        let again = try reading(kind, written)
        try require(again == written, "a \(kind) record reads otherwise after it was written anew")
    }
}

/// What was written is no damaged record.
private func reading(_ kind: IndexRecordKind, _ bytes: [UInt8]) throws -> [UInt8]? {
    do {
        return try bytes.withUnsafeBytes { try kind.rewrite($0) }
    } catch let error as StoreError {
        throw FuzzFinding("a \(kind) record cannot be read after it was written anew: \(error)")
    }
}
