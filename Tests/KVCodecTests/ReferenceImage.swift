import KVCodec
import Testing

/// Reads the first layer of a page image record by record and decodes it with `ReferenceDecoder`.
struct ReferenceImage {
    private let section: [UInt8]
    private let classes: [TokenClass]

    init(_ encoded: EncodedPage) throws {
        let (range, classes) = try encoded.withImage { (try #require($0.layers[0]).byteRange, $0.tokenClasses) }
        section = Array(encoded.bytes[range])
        self.classes = classes
    }

    /// `[heads, tokens, dim]`
    func tensor(_ tensor: TensorKind, page: OwnedPage) throws -> [Float] {
        let layer = try #require(page.layers[0])
        let original = tensor == .key ? layer.key : layer.value
        let (heads, dim) = (original.layout.heads, original.layout.dim)
        var result = try original.floats()
        var masked: [[Int]] = []
        for (record, streams) in try parts() where record.tensor == tensor.rawValue && record.scheme != Scheme.exact.rawValue {
            let tokens = classes.indices.filter { record.tokenClasses >> classes[$0].rawValue & 1 == 1 }
            let part = try self.part(record, streams, heads: heads, tokens: tokens.count)
            if let mask = streams[.mask]?.first {
                masked = (0..<heads).map { head in
                    (0..<dim).filter { mask[head * ((dim + 7) / 8) + $0 / 8] >> ($0 % 8) & 1 == 1 }
                }
            }
            for head in 0..<heads {
                var channels = Array(0..<dim)
                if record.channelSet == ChannelSet.masked.rawValue { channels = masked[head] }
                if record.channelSet == ChannelSet.unmasked.rawValue { channels = channels.filter { !masked[head].contains($0) } }
                let matrix = ReferenceDecoder.matrix(part, head: head)
                for (row, token) in tokens.enumerated() {
                    for (column, channel) in channels.enumerated() {
                        let at = part.alongChannels ? column * part.columns + row : row * part.columns + column
                        result[(head * original.layout.tokens + token) * dim + channel] = matrix[at]
                    }
                }
            }
            let last = record.channelSet != ChannelSet.masked.rawValue
            if last, record.flags & PartFlags.unrotated.rawValue != 0 {
                rotate(&result, tokens: tokens, heads: heads, dim: dim, page: page)
            }
        }
        return result
    }

    private func rotate(_ values: inout [Float], tokens: [Int], heads: Int, dim: Int, page: OwnedPage) {
        guard let rotary = page.layers[0]?.geometry.rotary else { return }
        for head in 0..<heads {
            for token in tokens {
                let start = (head * page.tokenCount + token) * dim
                var key = Array(values[start..<start + dim])
                let positions = page.positions.map { $0.map { Int($0[token]) } } ?? [page.identity.firstToken + token]
                ReferenceDecoder.rotate(&key, by: rotary, positions: rotary.sections == nil ? [positions[0]] : positions)
                values.replaceSubrange(start..<start + dim, with: key)
            }
        }
    }

    /// Every part with its streams, decompressed; streams of a kind in the order of their planes.
    private func parts() throws -> [(PartRecord, [StreamKind: [[UInt8]]])] {
        try section.withUnsafeBytes { bytes in
            let header = try #require(SectionHeader(at: 0, of: bytes))
            let table = SectionHeader.byteCount + Int(header.partCount) * PartRecord.byteCount
            var offset = table + Int(header.streamCount) * StreamRecord.byteCount
            var next = 0
            let shared = try sharedStreams(of: bytes, header, table: table)
            return try (0..<Int(header.partCount)).map { index in
                let part = try #require(PartRecord(at: SectionHeader.byteCount + index * PartRecord.byteCount, of: bytes))
                var streams: [StreamKind: [[UInt8]]] = [:]
                for _ in 0..<part.streamCount {
                    let stream = try #require(StreamRecord(at: table + next * StreamRecord.byteCount, of: bytes))
                    if let own = shared[next] {
                        streams[try #require(StreamKind(rawValue: stream.kind)), default: []].append(own)
                        next += 1
                        continue
                    }
                    let stored = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + Int(stream.storedBytes)])
                    streams[try #require(StreamKind(rawValue: stream.kind)), default: []].append(
                        try expand(stored, stream.encoding))
                    offset += Int(stream.storedBytes)
                    next += 1
                }
                return (part, streams)
            }
        }
    }

    /// The streams in the section's shared frame, by their number in the table.
    private func sharedStreams(of bytes: UnsafeRawBufferPointer, _ header: SectionHeader, table: Int) throws -> [Int: [UInt8]] {
        var own: [(index: Int, kind: UInt8, byteCount: Int)] = []
        for index in 0..<Int(header.streamCount) {
            let record = try #require(StreamRecord(at: table + index * StreamRecord.byteCount, of: bytes))
            if record.encoding == StreamEncoding.shared.rawValue { own.append((index, record.kind, Int(record.storedBytes))) }
        }
        var raw = [UInt8](repeating: 0, count: own.reduce(0) { $0 + $1.byteCount })
        let frame = UnsafeRawBufferPointer(rebasing: bytes[(bytes.count - Int(header.sharedBytes))...])
        if !own.isEmpty {
            try raw.withUnsafeMutableBytes { try Decompressor().decompress(frame, encoding: .zstd, into: $0) }
        }
        var streams: [Int: [UInt8]] = [:]
        var start = 0
        for stream in own.sorted(by: { ($0.kind, $0.index) < ($1.kind, $1.index) }) {
            streams[stream.index] = Array(raw[start..<start + stream.byteCount])
            start += stream.byteCount
        }
        return streams
    }

    /// Finds a stream's raw length by trying; the decompressor takes only the right one.
    private func expand(_ stored: UnsafeRawBufferPointer, _ encoding: UInt8) throws -> [UInt8] {
        guard encoding == StreamEncoding.zstd.rawValue else { return Array(stored) }
        let decompressor = try Decompressor()
        for count in stored.count + 1..<1 << 16 {
            var raw = [UInt8](repeating: 0, count: count)
            let fits = raw.withUnsafeMutableBytes { raw in
                (try? decompressor.decompress(stored, encoding: .zstd, into: raw)) != nil
            }
            if fits { return raw }
        }
        throw CodecError(.damaged, "no length fits")
    }

    private func part(
        _ record: PartRecord, _ streams: [StreamKind: [[UInt8]]], heads: Int, tokens: Int
    ) throws -> ReferenceDecoder.Part {
        let along = record.flags & PartFlags.alongChannels.rawValue != 0
        return ReferenceDecoder.Part(
            scheme: try #require(Scheme(rawValue: record.scheme)), codeBits: Int(record.codeBits),
            fourier: record.flags & PartFlags.fourier.rawValue != 0, alongChannels: along, meanShift: Int(record.meanShift),
            group: Int(record.groupSize), rows: along ? Int(record.channelCount) : tokens,
            columns: along ? tokens : Int(record.channelCount), codes: try #require(streams[.codes]?.first),
            scales: try #require(streams[.scales]?.first), anchors: try #require(streams[.anchors]?.first),
            meanPlanes: streams[.means] ?? [])
    }
}
