import KVCodec

/// The records whose form depends on counts within them, which a reader must not trust.
package enum IndexRecordKind: CaseIterable, Sendable {
    case node, head, model, tenant, tokens, volume, headKey, buildingKey, tipKey, leafKey, returns, frequencies, leases
    case sealedValue, sealedImage

    /// Reads a record, as whoever uses the index would, and writes it anew.
    ///
    /// - Returns: what was written; nil for a record that is only read, or that counts as missing.
    /// - Throws: `StoreError.damaged` for bytes that are no such record.
    package func rewrite(_ bytes: UnsafeRawBufferPointer) throws -> [UInt8]? {
        switch self {
        case .node: return try Node(bytes: bytes).encoded()
        case .head: return try Head(bytes: bytes).encoded()
        case .model:
            let model = try StoredModel(name: "any", bytes: bytes)
            return model.spec.encoded(id: model.id, createdSeconds: model.createdSeconds)
        case .tenant: _ = try StoredTenant(name: "any", bytes: bytes)
        case .tokens: return try TokenSequence(canonical: Array(bytes)).canonical(origin: 0)
        case .volume: _ = VolumeRecord(bytes: bytes)
        case .headKey: return try HeadKey(bytes: bytes).bytes
        case .buildingKey: return try BuildingKey(bytes: bytes).bytes
        case .tipKey: return try TipKey(bytes: bytes).bytes
        case .leafKey: return try LeafKey(bytes: bytes).bytes
        case .returns: _ = ReturnTables.decode(bytes)
        case .frequencies: return FrequencySketch(bytes: bytes)?.encoded
        case .sealedValue: _ = SealedValue.header(bytes)
        case .sealedImage:
            let keys = KeyRing()
            keys.add(TenantKeys(tenant: 1, name: "any", owner: .random()))
            do { try StoredImage(bytes, keys: keys).withWhole { _ in } } catch let error as CodecError {
                throw StoreError(.damaged, "\(error)")
            }
            try? StoredImage.verifyChecksum(of: bytes)
        case .leases: _ = LeaseFile.Contents(Array(bytes))
        }
        return nil
    }
}
