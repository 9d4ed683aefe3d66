/// A record of schema/records.json: so many bytes, the same on every machine.
package protocol FixedLayoutRecord {
    static var byteCount: Int { get }
    init?(at offset: Int, of bytes: UnsafeRawBufferPointer)
    func store(at offset: Int, in bytes: UnsafeMutableRawBufferPointer)
}

extension [UInt8] {
    /// Appends the record's bytes.
    package mutating func append<Record: FixedLayoutRecord>(_ record: Record) {
        let start = count
        append(contentsOf: repeatElement(0, count: Record.byteCount))
        withUnsafeMutableBytes { record.store(at: start, in: $0) }
    }
}
