#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A safetensors file, open for reading.
///
/// The file is mapped, so opening costs as much as its header, whatever its size, and tensors are read where they lie. Everything
/// in the header is checked before the file is accepted: a `SafetensorsFile` that exists describes each of its bytes.
///
/// The file must not get shorter while it is open. That is checked again each time bytes are handed out, so a file
/// replaced or cut by a careless copy is an error; cutting it *during* a read ends the process, as with any mapped file.
///
/// A `SafetensorsFile` may be used by several threads at once.
public final class SafetensorsFile: Sendable {
    /// The longest header that is accepted, as in the reference implementation.
    public static let headerByteCountMax = 100_000_000

    /// The path given at `init`.
    public let path: String
    /// The entries under `__metadata__`.
    public let metadata: [String: String]
    /// Each tensor by its name.
    public let tensors: [String: TensorInfo]
    /// Names of the tensors, in the order of their bytes in the file.
    public let names: [String]

    private let descriptor: CInt
    private let byteCount: Int
    private let headerEnd: Int
    private let mapping: FileMapping

    /// Opens and checks a file.
    ///
    /// - Complexity: O(*h* log *h*) in the length of the header.
    public init(path: String) throws(SafetensorsError) {
        let descriptor = try openForReading(path)
        do throws(SafetensorsError) {
            let byteCount = try regularFileByteCount(descriptor, path)
            let mapping = try map(descriptor, byteCount: byteCount, path)
            let file = UnsafeRawBufferPointer(mapping.bytes)
            let headerEnd = try Self.headerEnd(of: file, path)
            let header = try Header(
                UnsafeRawBufferPointer(rebasing: file[Self.lengthByteCount..<headerEnd]),
                dataByteCount: byteCount - headerEnd, file: path)
            self.descriptor = descriptor
            self.byteCount = byteCount
            self.mapping = mapping
            self.headerEnd = headerEnd
            self.path = path
            metadata = header.metadata
            names = header.tensors.map(\.name)
            // The header's names were checked to differ.
            tensors = Dictionary(header.tensors.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        close(descriptor)
    }

    // MARK: - Tensors

    /// The tensor called `name`.
    public func info(of name: String) throws(SafetensorsError) -> TensorInfo {
        guard let tensor = tensors[name] else {
            throw SafetensorsError(
                .noSuchTensor, file: path, tensor: name, "the file has no such tensor; it holds \(contentSummary).")
        }
        return tensor
    }

    /// Calls `body` with the bytes of a tensor: `info(of: name).byteCount` of them, little-endian, rows first.
    ///
    /// The bytes need not be aligned to the element type, and are valid only inside of `body`.
    public func withBytes<Result, Failure: Error>(
        of name: String, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws -> Result {
        let tensor = try info(of: name)
        try checkSize()
        return try body(UnsafeRawBufferPointer(rebasing: mapping.bytes[mapped(tensor)]))
    }

    /// Asks the kernel to start reading a tensor from disk, ahead of its use.
    public func prefetch(_ name: String) throws(SafetensorsError) {
        mapping.advise(MADV_WILLNEED, mapped(try info(of: name)))
    }

    /// Takes the pages read so far out of this process's resident memory. They stay in the kernel's cache as long as it likes.
    ///
    /// For whoever walks through a file larger than the memory it may use.
    public func releaseResidentPages() {
        mapping.advise(MADV_DONTNEED, 0..<byteCount)
    }

    // MARK: - Details

    /// The length of the header stands in as many bytes at the start of the file.
    static let lengthByteCount = 8

    private func mapped(_ tensor: TensorInfo) -> Range<Int> {
        headerEnd + tensor.byteRange.lowerBound..<headerEnd + tensor.byteRange.upperBound
    }

    private var contentSummary: String {
        switch names.count {
        case 0: "none"
        case 1...4: names.map { "'\(printable($0))'" }.joined(separator: ", ")
        default: "\(names.count), among them " + names.prefix(3).map { "'\(printable($0))'" }.joined(separator: ", ")
        }
    }

    private func checkSize() throws(SafetensorsError) {
        let now = try regularFileByteCount(descriptor, path)
        guard now == byteCount else {
            throw SafetensorsError(
                .changedWhileOpen, file: path,
                "the file had \(byteCount) bytes when it was opened and has \(now) now; "
                    + "wait until nothing writes it, then open it again.")
        }
    }

    /// Where the header ends, from the file's first eight bytes.
    private static func headerEnd(of file: UnsafeRawBufferPointer, _ path: String) throws(SafetensorsError) -> Int {
        let claimed = UInt64(littleEndian: file.loadUnaligned(as: UInt64.self))
        guard claimed <= UInt64(headerByteCountMax) else {
            throw SafetensorsError(
                .headerTooLarge, file: path,
                "the header claims \(claimed) bytes, more than \(headerByteCountMax). "
                    + "The file is damaged or no safetensors file.")
        }
        let end = lengthByteCount + Int(claimed)
        guard end <= file.count else {
            throw SafetensorsError(
                .headerTruncated, file: path,
                "the header claims \(claimed) bytes, but only \(file.count - lengthByteCount) follow. "
                    + "The file is cut short; copy or write it again.")
        }
        return end
    }
}

/// Opens a file without waiting for a writer where it turns out to be a pipe.
private func openForReading(_ path: String) throws(SafetensorsError) -> CInt {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
        throw SafetensorsError(
            .unreadable, file: path, "the file cannot be opened: \(systemMessage(errno)). Check the path and its permissions.")
    }
    return descriptor
}

private func regularFileByteCount(_ descriptor: CInt, _ path: String) throws(SafetensorsError) -> Int {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
        throw SafetensorsError(.unreadable, file: path, "the file cannot be examined: \(systemMessage(errno)).")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
        throw SafetensorsError(
            .unreadable, file: path, "this is a folder, pipe or device, but a regular file is needed.")
    }
    return Int(status.st_size)
}

private func map(_ descriptor: CInt, byteCount: Int, _ path: String) throws(SafetensorsError) -> FileMapping {
    guard byteCount >= SafetensorsFile.lengthByteCount else {
        throw SafetensorsError(
            .tooShort, file: path,
            "the file has \(byteCount) bytes, fewer than the \(SafetensorsFile.lengthByteCount) of a header's length. "
                + "It is cut short or no safetensors file.")
    }
    guard let mapping = FileMapping(descriptor, 0..<byteCount, writable: false) else {
        throw SafetensorsError(.unreadable, file: path, "the file cannot be mapped: \(systemMessage(errno)).")
    }
    return mapping
}
