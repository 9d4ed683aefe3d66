/// One stream of a part, where it lies: in the image or, when it is shared, decompressed in scratch memory.
struct StreamView {
    let kind: StreamKind
    /// Never `.shared`: such a stream's bytes are there, raw.
    let encoding: StreamEncoding
    let plane: Int
    let bytes: UnsafeRawBufferPointer
    /// What it takes of the section; of a shared stream, its part of the frame.
    let storedBytes: Int
    let isShared: Bool
}

/// One part of a section, checked against the layer's shape.
struct PartView {
    let tensor: TensorKind
    let classes: UInt8
    let scheme: Scheme
    let codeBits: Int
    let flags: PartFlags
    let channelSet: ChannelSet
    let meanShift: Int
    let group: Int
    let channels: Int
    let streams: [StreamView]

    func stream(_ kind: StreamKind, plane: Int = 0) -> StreamView? {
        streams.first { $0.kind == kind && $0.plane == plane }
    }

    /// Planes of means, lowest first; 0 when every mean is zero.
    var meanPlanes: Int { streams.count { $0.kind == .means } }
}

/// A layer's section, parsed. Everything that a decoder relies on has been checked; the streams' contents have not.
struct SectionView {
    let parts: [PartView]

    /// - Parameters:
    ///   - present: the token classes that occur among the tokens that the layer holds, as bits.
    ///   - scratch: shared streams lie in it, until it parses the next section.
    init(
        parsing bytes: UnsafeRawBufferPointer, geometry: LayerGeometry, elementType: ElementType, present: UInt8,
        scratch: DecodeScratch
    ) throws(CodecError) {
        guard let header = SectionHeader(at: 0, of: bytes) else { throw .damaged("a section is too short for its header") }
        let partCount = Int(header.partCount)
        let streamCount = Int(header.streamCount)
        guard (1...PageFormat.partsMax).contains(partCount), (1...PageFormat.streamsMax).contains(streamCount) else {
            throw .damaged("a section of \(partCount) parts and \(streamCount) streams")
        }
        var streams = try Self.streams(of: bytes, header, scratch: scratch)[...]
        var parts: [PartView] = []
        for index in 0..<partCount {
            guard let record = PartRecord(at: SectionHeader.byteCount + index * PartRecord.byteCount, of: bytes) else {
                throw .damaged("a section is too short for its parts")
            }
            let own = streams.prefix(Int(record.streamCount))
            guard own.count == Int(record.streamCount) else { throw .damaged("a section has fewer streams than its parts name") }
            streams = streams.dropFirst(own.count)
            parts.append(try PartView(record, streams: Array(own), elementType: elementType))
        }
        guard streams.isEmpty else { throw .damaged("a section has streams that belong to no part") }
        for (part, next) in zip(parts, parts.dropFirst()) where part.channelSet == .masked && next.tensor != part.tensor {
            throw .damaged("a masked part is not followed by the rest of its channels")
        }
        self.parts = parts
        try checkCoverage(.key, dim: geometry.keyDim, present: present)
        try checkCoverage(.value, dim: geometry.valueDim, present: present)
        guard geometry.rotary != nil || !parts.contains(where: { $0.flags.contains(.unrotated) }) else {
            throw .damaged("a section is un-rotated, but its layer has no rotary table")
        }
    }

    private static func streams(
        of bytes: UnsafeRawBufferPointer, _ header: SectionHeader, scratch: DecodeScratch
    ) throws(CodecError) -> [StreamView] {
        let table = SectionHeader.byteCount + Int(header.partCount) * PartRecord.byteCount
        var offset = table + Int(header.streamCount) * StreamRecord.byteCount
        guard offset <= bytes.count else { throw .damaged("a section is too short for its streams") }
        let frame = try SharedFrame(of: bytes, table: table, header, scratch: scratch)
        let end = bytes.count - Int(header.sharedBytes)
        var streams: [StreamView] = []
        streams.reserveCapacity(Int(header.streamCount))
        for index in 0..<Int(header.streamCount) {
            guard let record = StreamRecord(at: table + index * StreamRecord.byteCount, of: bytes) else {
                throw .damaged("a section is too short for its streams")
            }
            guard let kind = StreamKind(rawValue: record.kind), let encoding = StreamEncoding(rawValue: record.encoding) else {
                throw .damaged("a stream of unknown kind \(record.kind) or encoding \(record.encoding)")
            }
            if encoding == .shared {
                let own = frame.take(kind, byteCount: Int(record.storedBytes))
                streams.append(
                    StreamView(
                        kind: kind, encoding: .raw, plane: Int(record.plane), bytes: own.bytes, storedBytes: own.storedBytes,
                        isShared: true))
                continue
            }
            guard offset <= end, Int(record.storedBytes) <= end - offset else {
                throw .damaged("a stream reaches past the end of its section")
            }
            let stored = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(record.storedBytes)])
            streams.append(
                StreamView(
                    kind: kind, encoding: encoding, plane: Int(record.plane), bytes: stored, storedBytes: stored.count,
                    isShared: false))
            offset += stored.count
        }
        guard offset == end else { throw .damaged("a section has \(end) bytes of streams, its streams end at \(offset)") }
        return streams
    }

    /// Every class that occurs is in exactly one place: a part of all channels, or a masked part and the unmasked one after it.
    private func checkCoverage(_ tensor: TensorKind, dim: Int, present: UInt8) throws(CodecError) {
        var covered: UInt8 = 0
        var masked: PartView?
        for part in parts where part.tensor == tensor {
            if let first = masked {
                guard part.channelSet == .unmasked, part.classes == first.classes, part.group == first.group,
                    part.channels + first.channels == dim, part.flags.contains(.unrotated) == first.flags.contains(.unrotated)
                else { throw .damaged("a part does not go with the masked part before it") }
                masked = nil
                continue
            }
            guard part.channelSet != .unmasked else { throw .damaged("an unmasked part follows no masked part") }
            guard covered & part.classes == 0, part.classes & present != 0 else {
                throw .damaged("a token class is in two parts, or in a part for no token")
            }
            covered |= part.classes
            if part.channelSet == .masked {
                guard part.channels < dim else { throw .damaged("a masked part has all channels") }
                masked = part
            } else if part.channels != dim {
                throw .damaged("a part has \(part.channels) of \(dim) channels")
            }
        }
        guard masked == nil, covered & present == present else { throw .damaged("a section lacks some of its tokens") }
    }
}

extension PartView {
    init(_ record: PartRecord, streams: [StreamView], elementType: ElementType) throws(CodecError) {
        guard let tensor = TensorKind(rawValue: record.tensor), let scheme = Scheme(rawValue: record.scheme),
            let channelSet = ChannelSet(rawValue: record.channelSet), record.tokenClasses & ~7 == 0,
            record.flags & ~PartFlags.known.rawValue == 0, record.channelCount > 0
        else { throw .damaged("a part of an unknown kind") }
        self.tensor = tensor
        self.classes = record.tokenClasses
        self.scheme = scheme
        self.codeBits = Int(record.codeBits)
        self.flags = PartFlags(rawValue: record.flags)
        self.channelSet = channelSet
        self.meanShift = Int(record.meanShift)
        self.group = Int(record.groupSize)
        self.channels = Int(record.channelCount)
        self.streams = streams
        if scheme == .exact {
            try checkExact(elementType: elementType)
        } else {
            try checkQuantized()
        }
    }

    private func checkExact(elementType: ElementType) throws(CodecError) {
        var complete = streams.count == elementType.byteCount + 1 && stream(.exponentMaxima) != nil
        for plane in 0..<elementType.byteCount { complete = complete && stream(.exactPlane, plane: plane) != nil }
        guard complete, codeBits == 0, flags.isEmpty, channelSet == .all, group == 0, meanShift == 0 else {
            throw .damaged("an exact part is not whole")
        }
    }

    private func checkQuantized() throws(CodecError) {
        guard [1, 2, 4, 8].contains(codeBits), group >= 8, group <= 1024, group % 8 == 0, meanShift <= 16 else {
            throw .damaged("a part with codes of \(codeBits) bits in groups of \(group)")
        }
        guard !flags.contains(.alongChannels) || (channelSet == .all && !flags.contains(.fourier)) else {
            throw .damaged("a part with groups along some channels only")
        }
        guard tensor == .key || !flags.contains(.unrotated) else { throw .damaged("a value part is un-rotated") }
        var expected = channelSet == .masked ? 1 : 0
        var complete = (stream(.mask) != nil) == (channelSet == .masked)
        for kind in [StreamKind.codes, .scales, .anchors] {
            complete = complete && stream(kind) != nil
            expected += 1
        }
        for plane in 0..<meanPlanes { complete = complete && stream(.means, plane: plane) != nil }
        guard complete, meanPlanes <= PageFormat.meanPlanesMax, streams.count == expected + meanPlanes else {
            throw .damaged("a part's streams are not the ones it needs")
        }
    }
}
