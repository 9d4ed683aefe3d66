/// The checked content of a header.
///
/// The format: https://github.com/huggingface/safetensors#format. Eight bytes hold the length of a JSON object, which maps
/// each tensor's name to its element type, shape and byte range; then come the elements, little-endian, rows first, without a gap.
struct Header {
    var metadata: [String: String] = [:]
    /// In file order: by byte range. Tensors without elements come where their offset says, in the order of the header.
    var tensors: [TensorInfo] = []

    /// An entry as the header states it.
    private struct Entry {
        let name: String
        let dataType: DataType
        let shape: [UInt64]
        let range: (begin: UInt64, end: UInt64)
    }

    /// Parses the JSON, then checks it against the size of the data area.
    ///
    /// - Parameters:
    ///   - bytes: the JSON, padding included.
    ///   - dataByteCount: bytes of the file behind the header.
    init(_ bytes: UnsafeRawBufferPointer, dataByteCount: Int, file: String) throws(SafetensorsError) {
        let malformed = { (problem: HeaderScanner.Problem) in
            SafetensorsError(
                .headerMalformed, file: file,
                "the header is not valid at its byte \(problem.offset): \(problem.message). "
                    + "The file is damaged or no safetensors file; write it again.")
        }
        guard bytes.first == UInt8(ascii: "{") else {
            throw malformed(.init(offset: 0, message: "expected '{'"))
        }
        var scanner = HeaderScanner(bytes)
        var entries: [Entry] = []
        var names: Set<String> = []
        var metadata: [String: String] = [:]
        try scanner.object(
            { (scanner, name) throws(SafetensorsError) in
                guard names.insert(name).inserted else {
                    throw SafetensorsError(
                        .duplicateName, file: file, tensor: name, "the header has this name twice; write the file again.")
                }
                if name == metadataKey {
                    metadata = try Self.metadata(&scanner, file: file, malformed)
                } else {
                    entries.append(try Self.entry(&scanner, name: name, file: file, malformed))
                }
            }, orFail: malformed)
        do throws(HeaderScanner.Problem) { try scanner.expectEnd() } catch { throw malformed(error) }
        self.metadata = metadata
        tensors = try Self.checked(entries, dataByteCount: dataByteCount, file: file)
    }

    // MARK: - Parsing

    private static func metadata(
        _ scanner: inout HeaderScanner, file: String, _ malformed: (HeaderScanner.Problem) -> SafetensorsError
    ) throws(SafetensorsError) -> [String: String] {
        var result: [String: String] = [:]
        try scanner.object(
            { (scanner, key) throws(SafetensorsError) in
                let value: String
                do throws(HeaderScanner.Problem) { value = try scanner.string() } catch { throw malformed(error) }
                guard result.updateValue(value, forKey: key) == nil else {
                    throw SafetensorsError(
                        .duplicateName, file: file,
                        "the metadata has the key '\(printable(key))' twice; write the file again.")
                }
            }, orFail: malformed)
        return result
    }

    private static func entry(
        _ scanner: inout HeaderScanner, name: String, file: String,
        _ malformed: (HeaderScanner.Problem) -> SafetensorsError
    ) throws(SafetensorsError) -> Entry {
        var typeName: String?
        var shape: [UInt64]?
        var offsets: [UInt64]?
        try scanner.object(
            { (scanner, key) throws(SafetensorsError) in
                do throws(HeaderScanner.Problem) {
                    switch key {
                    case "dtype" where typeName == nil: typeName = try scanner.string()
                    case "shape" where shape == nil: shape = try scanner.integers()
                    case "data_offsets" where offsets == nil: offsets = try scanner.integers()
                    case "dtype", "shape", "data_offsets": throw scanner.problem("'\(key)' stands twice")
                    default: throw scanner.problem("'\(printable(key))' is none of dtype, shape, data_offsets")
                    }
                } catch { throw malformed(error) }
            }, orFail: malformed)
        guard let typeName, let shape, let offsets, offsets.count == 2 else {
            throw malformed(
                scanner.problem("tensor '\(printable(name))' needs dtype, shape and data_offsets with two numbers"))
        }
        guard let dataType = DataType(rawValue: typeName) else {
            throw SafetensorsError(
                .unknownDataType, file: file, tensor: name,
                "the element type '\(printable(typeName))' is not known; convert the tensor to one of "
                    + DataType.allCases.map(\.rawValue).joined(separator: ", ") + ".")
        }
        return Entry(name: name, dataType: dataType, shape: shape, range: (offsets[0], offsets[1]))
    }

    // MARK: - Checking

    /// Every byte of the data area belongs to exactly one tensor, and each tensor has as many as it needs.
    private static func checked(
        _ entries: [Entry], dataByteCount: Int, file: String
    ) throws(SafetensorsError) -> [TensorInfo] {
        var tensors: [TensorInfo] = []
        tensors.reserveCapacity(entries.count)
        for entry in entries {
            tensors.append(try checked(entry, dataByteCount: dataByteCount, file: file))
        }
        // The standard library's sort is stable.
        tensors.sort { ($0.byteRange.lowerBound, $0.byteRange.upperBound) < ($1.byteRange.lowerBound, $1.byteRange.upperBound) }
        var end = 0
        for tensor in tensors {
            let begin = tensor.byteRange.lowerBound
            guard begin >= end else {
                throw SafetensorsError(
                    .overlap, file: file, tensor: tensor.name,
                    "its bytes begin at \(begin), inside of the tensor before it, which ends at \(end); write the file again.")
            }
            guard begin == end else {
                throw SafetensorsError(
                    .hole, file: file, tensor: tensor.name,
                    "the bytes \(end)..<\(begin) before it belong to no tensor; write the file again.")
            }
            end = tensor.byteRange.upperBound
        }
        guard end == dataByteCount else {
            throw SafetensorsError(
                .hole, file: file,
                "the last \(dataByteCount - end) bytes belong to no tensor; the file was written wrongly or something was "
                    + "appended to it; write it again.")
        }
        return tensors
    }

    private static func checked(
        _ entry: Entry, dataByteCount: Int, file: String
    ) throws(SafetensorsError) -> TensorInfo {
        let range = entry.range
        guard range.begin <= range.end, range.end <= UInt64(dataByteCount) else {
            throw SafetensorsError(
                .rangeOutOfBounds, file: file, tensor: entry.name,
                "data_offsets are [\(range.begin), \(range.end)], but the file has \(dataByteCount) bytes of data; "
                    + "the file is cut short or damaged; copy or write it again.")
        }
        let overflow = SafetensorsError(
            .shapeOverflow, file: file, tensor: entry.name,
            "the shape \(entry.shape) has more elements than any memory holds; write the file again.")
        var shape: [Int] = []
        for extent in entry.shape {
            guard let extent = Int(exactly: extent) else { throw overflow }
            shape.append(extent)
        }
        let expected: Int
        do throws(ShapeProblem) {
            expected = try byteCount(of: shape, entry.dataType)
        } catch {
            switch error {
            case .overflow, .negativeExtent: throw overflow
            case .partialByte:
                throw SafetensorsError(
                    .sizeMismatch, file: file, tensor: entry.name,
                    "\(entry.dataType.rawValue) \(shape) does not fill whole bytes; write the file again.")
            }
        }
        guard UInt64(expected) == range.end - range.begin else {
            throw SafetensorsError(
                .sizeMismatch, file: file, tensor: entry.name,
                "\(entry.dataType.rawValue) \(shape) takes \(expected) bytes, but data_offsets hold "
                    + "\(range.end - range.begin); write the file again.")
        }
        // Both ends are at most dataByteCount, an Int.
        return TensorInfo(
            name: entry.name, dataType: entry.dataType, shape: shape, byteRange: Int(range.begin)..<Int(range.end))
    }
}

/// The header's key for what is no tensor.
let metadataKey = "__metadata__"
