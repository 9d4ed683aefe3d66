import KVCodec

// A model's record: ModelRecord, LayerRecords, rotary tables (schema/FORMAT.md, "model").

/// A model as the index holds it.
struct StoredModel: Hashable, Sendable {
    var id: UInt32
    var createdSeconds: Int64
    var spec: ModelSpec
}

extension ModelSpec {
    /// - Throws: `StoreError.invalidArgument` that names the first field out of range.
    package func validate() throws {
        try Names.check(name, what: "model")
        guard !layers.isEmpty, layers.count <= Self.layersMax else {
            throw StoreError(.invalidArgument, "a model has 1...\(Self.layersMax) layers, this one has \(layers.count)")
        }
        for (index, layer) in layers.enumerated() {
            guard (1...LayerGeometry.headsMax).contains(layer.keyValueHeads),
                (1...LayerGeometry.dimMax).contains(layer.keyDim), (1...LayerGeometry.dimMax).contains(layer.valueDim)
            else {
                throw StoreError(
                    .invalidArgument,
                    "layer \(index): KV heads must be 1...\(LayerGeometry.headsMax) and head dims 1...\(LayerGeometry.dimMax)")
            }
            if let window = layer.slidingWindow, window < 1 || window > TokenSequence.countMax {
                throw StoreError(.invalidArgument, "layer \(index): a sliding window of \(window) tokens is not possible")
            }
            try layer.rotary?.validate(layer: index, keyDim: layer.keyDim)
        }
        guard Set(layers.compactMap(\.rotary)).count <= 255 else {
            throw StoreError(.invalidArgument, "a model has at most 255 different rotary tables")
        }
    }

    /// The bytes that the chain's root covers: everything that shapes the cache, but not the name.
    func chainBytes() -> [UInt8] {
        encoded(id: 0, createdSeconds: 0)
    }

    func encoded(id: UInt32, createdSeconds: Int64) -> [UInt8] {
        var tables: [RotaryParameters] = []
        let layerRecords = layers.map { layer -> LayerRecord in
            var rotaryIndex = UInt16.max
            if let rotary = layer.rotary {
                let index = tables.firstIndex(of: rotary) ?? tables.count
                if index == tables.count { tables.append(rotary) }
                rotaryIndex = UInt16(index)
            }
            return LayerRecord(
                keyValueHeads: UInt16(layer.keyValueHeads), keyDim: UInt16(layer.keyDim),
                valueDim: UInt16(layer.valueDim), rotaryIndex: rotaryIndex,
                slidingWindow: UInt32(layer.slidingWindow ?? 0))
        }
        var bytes: [UInt8] = []
        bytes.append(
            ModelRecord(
                fingerprint: fingerprint, modelId: id, elementType: elementType.rawValue,
                layerCount: UInt32(layers.count), rotaryCount: UInt32(tables.count), createdSeconds: createdSeconds))
        for record in layerRecords { bytes.append(record) }
        for table in tables { table.append(to: &bytes) }
        return bytes
    }
}

extension StoredModel {
    init(name: String, bytes: UnsafeRawBufferPointer) throws {
        let damaged = StoreError(.damaged, "the record of model '\(name)' is damaged; run `reelkv verify`")
        guard let record = ModelRecord(at: 0, of: bytes), let type = ElementType(rawValue: record.elementType),
            (1...UInt32(ModelSpec.layersMax)).contains(record.layerCount), record.rotaryCount < 256
        else { throw damaged }
        let tableStart = ModelRecord.byteCount + Int(record.layerCount) * LayerRecord.byteCount
        var offset = tableStart
        var tables: [RotaryParameters] = []
        for _ in 0..<record.rotaryCount {
            guard let table = RotaryParameters(at: &offset, of: bytes) else { throw damaged }
            tables.append(table)
        }
        var layers: [LayerGeometry] = []
        for index in 0..<Int(record.layerCount) {
            guard let layer = LayerRecord(at: ModelRecord.byteCount + index * LayerRecord.byteCount, of: bytes),
                layer.rotaryIndex == .max || layer.rotaryIndex < tables.count
            else { throw damaged }
            layers.append(
                LayerGeometry(
                    keyValueHeads: Int(layer.keyValueHeads), keyDim: Int(layer.keyDim), valueDim: Int(layer.valueDim),
                    slidingWindow: layer.slidingWindow == 0 ? nil : Int(layer.slidingWindow),
                    rotary: layer.rotaryIndex == .max ? nil : tables[Int(layer.rotaryIndex)]))
        }
        id = record.modelId
        createdSeconds = record.createdSeconds
        spec = ModelSpec(name: name, fingerprint: record.fingerprint, elementType: type, layers: layers)
        do { try spec.validate() } catch { throw damaged }
    }
}

extension RotaryParameters {
    fileprivate func validate(layer: Int, keyDim: Int) throws {
        guard !inverseFrequencies.isEmpty, 2 * inverseFrequencies.count <= keyDim,
            inverseFrequencies.allSatisfy(\.isFinite)
        else {
            throw StoreError(
                .invalidArgument,
                "layer \(layer): \(inverseFrequencies.count) rotary pairs do not fit keys of \(keyDim) channels")
        }
        if let sections {
            guard sections.count == 3, sections.allSatisfy({ $0 >= 0 }), sections.reduce(0, +) == inverseFrequencies.count
            else {
                throw StoreError(
                    .invalidArgument,
                    "layer \(layer): M-RoPE needs 3 sections that add up to the \(inverseFrequencies.count) rotary pairs")
            }
        }
    }

    fileprivate func append(to bytes: inout [UInt8]) {
        bytes.append(
            RotaryRecord(
                pairCount: UInt16(inverseFrequencies.count), pairing: pairing.rawValue,
                sectionCount: UInt8(sections?.count ?? 0)))
        for section in sections ?? [] { bytes.appendLittleEndian(UInt32(section)) }
        for frequency in inverseFrequencies { bytes.appendLittleEndian(frequency) }
    }

    fileprivate init?(at offset: inout Int, of bytes: UnsafeRawBufferPointer) {
        guard let record = RotaryRecord(at: offset, of: bytes), let pairing = Pairing(rawValue: record.pairing) else {
            return nil
        }
        let sectionStart = offset + RotaryRecord.byteCount
        let frequencyStart = sectionStart + 4 * Int(record.sectionCount)
        let end = frequencyStart + 4 * Int(record.pairCount)
        guard end <= bytes.count else { return nil }
        let sections = (0..<Int(record.sectionCount)).map {
            Int(bytes.loadLittleEndian(at: sectionStart + 4 * $0, as: UInt32.self))
        }
        self.init(
            inverseFrequencies: (0..<Int(record.pairCount)).map {
                bytes.loadLittleEndian(at: frequencyStart + 4 * $0, as: Float.self)
            },
            pairing: pairing, sections: sections.isEmpty ? nil : sections)
        offset = end
    }
}
