#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Writes a safetensors file of any size, its tensors in any order and piece by piece.
///
/// ```swift
/// let writer = try SafetensorsWriter(
///     path: "cache.safetensors", tensors: [TensorDeclaration("layers.0.key", .bfloat16, shape: [1, 3, 2048, 64])])
/// try writer.withMutableBytes(of: "layers.0.key") { bytes in … }
/// try writer.finish()
/// ```
///
/// All tensors are declared first, so their places are known and the room on the disk is taken at once: a full disk is an
/// error at `init`, not halfway. What is never written stays zero. The file appears under its name, or replaces the one
/// there, only in `finish()`; a writer that is dropped before leaves nothing.
///
/// A writer may be used by several threads at once, as long as they write to different bytes; `finish()` must come after all.
public final class SafetensorsWriter: @unchecked Sendable {
    // Sendable: everything here is set in `init`, but for `file`, which only `finish()` clears, and that must come last.

    /// The path given at `init`.
    public let path: String
    /// The tensors in file order: those with the widest elements first, so that each is aligned to its elements; otherwise as
    /// they were declared.
    public let tensors: [TensorInfo]
    /// Bytes of the finished file.
    public let byteCount: Int

    private let tensorIndex: [String: Int]
    private let headerEnd: Int
    private var file: TemporaryFile?

    /// Lays out the file and takes its room on the disk.
    ///
    /// - Throws: `.invalidDeclaration` for equal names, impossible shapes or too long a header; `.diskFull`; `.unwritable`.
    public init(
        path: String, tensors declarations: [TensorDeclaration], metadata: [String: String] = [:]
    ) throws(SafetensorsError) {
        self.path = path
        tensors = try layOut(declarations, path)
        tensorIndex = Dictionary(
            tensors.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
        let header = try headerBytes(tensors, metadata, path)
        headerEnd = header.count
        let (total, overflow) = headerEnd.addingReportingOverflow(tensors.last?.byteRange.upperBound ?? 0)
        guard !overflow else {
            throw SafetensorsError(.invalidDeclaration, file: path, "the tensors together are larger than any disk.")
        }
        byteCount = total
        do throws(TemporaryFile.Failure) {
            let file = try TemporaryFile(for: path, byteCount: byteCount)
            let result = header.withUnsafeBytes { bytes in
                Result { () throws(TemporaryFile.Failure) in try file.write(bytes, at: 0) }
            }
            try result.get()
            self.file = file
        } catch {
            throw writeError(error, path)
        }
    }

    // MARK: - Filling

    /// Maps a tensor's bytes, little-endian and rows first, calls `body` to fill them, and unmaps them again: resident memory
    /// does not grow with the file.
    ///
    /// Bytes that were not written before are zero. They are valid only inside of `body`.
    public func withMutableBytes<Result, Failure: Error>(
        of name: String, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws -> Result {
        let (file, tensor) = try open(name)
        guard tensor.byteCount > 0 else { return try body(UnsafeMutableRawBufferPointer(start: nil, count: 0)) }
        let range = headerEnd + tensor.byteRange.lowerBound..<headerEnd + tensor.byteRange.upperBound
        guard let mapping = FileMapping(file.descriptor, range, writable: true) else {
            throw writeError(.init(code: errno, action: "the file cannot be mapped"), path)
        }
        return try withExtendedLifetime(mapping) { () throws(Failure) in try body(mapping.bytes) }
    }

    /// Writes `bytes` into a tensor, from its byte `offset` on.
    ///
    /// - Throws: `.writeOutOfBounds` when they do not fit.
    public func write(_ bytes: UnsafeRawBufferPointer, to name: String, at offset: Int = 0) throws(SafetensorsError) {
        let (file, tensor) = try open(name)
        guard offset >= 0, bytes.count <= tensor.byteCount, offset <= tensor.byteCount - bytes.count else {
            throw SafetensorsError(
                .writeOutOfBounds, file: path, tensor: name,
                "\(bytes.count) bytes at offset \(offset) do not fit its \(tensor.byteCount) bytes.")
        }
        do throws(TemporaryFile.Failure) {
            try file.write(bytes, at: headerEnd + tensor.byteRange.lowerBound + offset)
        } catch {
            throw writeError(error, path)
        }
    }

    /// Brings the file to the disk and puts it in its place, in one step. Nothing can be written afterwards.
    ///
    /// - Throws: `.unwritable` or `.diskFull`; then the file under the name, if there was one, is the old one.
    public func finish() throws(SafetensorsError) {
        guard let file else { throw finishedError }
        self.file = nil
        do throws(TemporaryFile.Failure) { try file.publish() } catch { throw writeError(error, path) }
    }

    // MARK: - Details

    private var finishedError: SafetensorsError {
        SafetensorsError(.writerFinished, file: path, "the file is finished; make a new writer to change it.")
    }

    private func open(_ name: String) throws(SafetensorsError) -> (TemporaryFile, TensorInfo) {
        guard let file else { throw finishedError }
        guard let index = tensorIndex[name] else {
            throw SafetensorsError(
                .noSuchTensor, file: path, tensor: name, "it was not declared when the writer was made.")
        }
        return (file, tensors[index])
    }
}

private func writeError(_ failure: TemporaryFile.Failure, _ path: String) -> SafetensorsError {
    let message = "\(failure.action): \(systemMessage(failure.code))."
    return switch failure.code {
    case ENOSPC, EDQUOT:
        SafetensorsError(.diskFull, file: path, message + " Free some space or write elsewhere; nothing was left behind.")
    default:
        SafetensorsError(.unwritable, file: path, message + " Check that the folder exists and may be written.")
    }
}

// MARK: - Layout

/// Gives each declared tensor its place.
private func layOut(_ declarations: [TensorDeclaration], _ path: String) throws(SafetensorsError) -> [TensorInfo] {
    var names: Set<String> = [metadataKey]
    for declaration in declarations {
        guard names.insert(declaration.name).inserted else {
            throw SafetensorsError(
                .invalidDeclaration, file: path, tensor: declaration.name,
                declaration.name == metadataKey ? "this name is reserved." : "two tensors were declared with this name.")
        }
    }
    var tensors: [TensorInfo] = []
    tensors.reserveCapacity(declarations.count)
    var end = 0
    // The standard library's sort is stable.
    for declaration in declarations.sorted(by: { $0.dataType.bitCount > $1.dataType.bitCount }) {
        let count: Int
        do throws(ShapeProblem) {
            count = try byteCount(of: declaration.shape, declaration.dataType)
        } catch {
            let reason =
                switch error {
                case .negativeExtent: "an extent is negative"
                case .overflow: "it has more elements than any memory holds"
                case .partialByte: "it does not fill whole bytes"
                }
            throw SafetensorsError(
                .invalidDeclaration, file: path, tensor: declaration.name,
                "\(declaration.dataType.rawValue) \(declaration.shape) cannot be stored: \(reason).")
        }
        let (next, overflow) = end.addingReportingOverflow(count)
        guard !overflow else {
            throw SafetensorsError(
                .invalidDeclaration, file: path, tensor: declaration.name,
                "the tensors together are larger than any disk.")
        }
        tensors.append(
            TensorInfo(
                name: declaration.name, dataType: declaration.dataType, shape: declaration.shape, byteRange: end..<next))
        end = next
    }
    return tensors
}

/// The start of the file: the header's length, and the header, padded with spaces so that the data begins at a multiple of 8.
private func headerBytes(
    _ tensors: [TensorInfo], _ metadata: [String: String], _ path: String
) throws(SafetensorsError) -> [UInt8] {
    let tooLong = SafetensorsError(
        .invalidDeclaration, file: path,
        "the header would take more than \(SafetensorsFile.headerByteCountMax) bytes; "
            + "write fewer tensors or less metadata into one file.")
    // Names and metadata alone, before any of it is copied.
    let textByteCount =
        tensors.reduce(0) { $0 + $1.name.utf8.count } + metadata.reduce(0) { $0 + $1.key.utf8.count + $1.value.utf8.count }
    guard textByteCount <= SafetensorsFile.headerByteCountMax else { throw tooLong }
    var entries: [String] = []
    if !metadata.isEmpty {
        let pairs = metadata.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(quoted($0.value))" }
        entries.append("\(quoted(metadataKey)):{\(pairs.joined(separator: ","))}")
    }
    for tensor in tensors {
        let shape = tensor.shape.map(String.init).joined(separator: ",")
        entries.append(
            "\(quoted(tensor.name)):{\"dtype\":\"\(tensor.dataType.rawValue)\",\"shape\":[\(shape)],"
                + "\"data_offsets\":[\(tensor.byteRange.lowerBound),\(tensor.byteRange.upperBound)]}")
    }
    var json = Array("{\(entries.joined(separator: ","))}".utf8)
    while !json.count.isMultiple(of: 8) { json.append(UInt8(ascii: " ")) }
    guard json.count <= SafetensorsFile.headerByteCountMax else { throw tooLong }
    return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json
}

/// A JSON string.
private func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\0"..<" ":
            let digits = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
