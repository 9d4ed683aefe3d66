import Safetensors
import Testing

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

@Suite struct WriterTests {
    @Test func abandonedWriterLeavesNothing() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        try write([1, 2, 3], to: path)
        do {
            let writer = try SafetensorsWriter(path: path, tensors: [.init("a", .uint8, shape: [100_000])])
            try writer.withMutableBytes(of: "a") { $0[0] = 1 }
        }
        #expect(try folder.names() == ["a"])
        #expect(try read(path) == [1, 2, 3])
    }

    @Test func finishReplaces() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        try write([1, 2, 3], to: path)
        let writer = try SafetensorsWriter(path: path, tensors: [.init("a", .uint8, shape: [2])])
        #expect(try read(path) == [1, 2, 3])
        try writer.finish()
        #expect(try SafetensorsFile(path: path).bytes(of: "a") == [0, 0])
        #expect(try folder.names() == ["a"])
    }

    @Test func finishedWriterRefuses() throws {
        let folder = try TemporaryFolder()
        let writer = try SafetensorsWriter(path: folder.file("a"), tensors: [.init("a", .uint8, shape: [2])])
        try writer.finish()
        #expect(kind { try writer.finish() } == .writerFinished)
        #expect(kind { try writer.withMutableBytes(of: "a") { _ in } } == .writerFinished)
        #expect(kind { try [1].withUnsafeBytes { try writer.write($0, to: "a") } } == .writerFinished)
    }

    @Test(arguments: [(-1, 1), (0, 3), (2, 1), (3, 0), (.max, 1), (.min, 2)])
    func outOfBounds(offset: Int, count: Int) throws {
        let folder = try TemporaryFolder()
        let writer = try SafetensorsWriter(path: folder.file("a"), tensors: [.init("a", .uint8, shape: [2])])
        let bytes = [UInt8](repeating: 1, count: count)
        #expect(kind { try bytes.withUnsafeBytes { try writer.write($0, to: "a", at: offset) } } == .writeOutOfBounds)
        #expect(kind { try writer.withMutableBytes(of: "b") { _ in } } == .noSuchTensor)
    }

    @Test(
        arguments: [
            [TensorDeclaration("a", .uint8, shape: [1]), TensorDeclaration("a", .int64, shape: [1])],
            [TensorDeclaration("__metadata__", .uint8, shape: [1])],
            [TensorDeclaration("a", .uint8, shape: [-1])],
            [TensorDeclaration("a", .uint8, shape: [.max, 2])],
            [TensorDeclaration("a", .float64, shape: [.max / 8])],
            [TensorDeclaration("a", .float4, shape: [3])],
        ] + [tooManyTogether])
    func impossibleDeclarations(_ tensors: [TensorDeclaration]) throws {
        let folder = try TemporaryFolder()
        #expect(kind { try SafetensorsWriter(path: folder.file("a"), tensors: tensors) } == .invalidDeclaration)
        #expect(try folder.names() == [])
    }

    /// Each can be counted, their sum cannot.
    static let tooManyTogether = (0..<9).map { TensorDeclaration("\($0)", .uint8, shape: [.max / 8]) }

    @Test func tooLongHeader() throws {
        let folder = try TemporaryFolder()
        let metadata = ["long": String(repeating: "x", count: 100_000_001)]
        #expect(
            kind { try SafetensorsWriter(path: folder.file("a"), tensors: [], metadata: metadata) } == .invalidDeclaration)
    }

    @Test func unwritablePlaces() throws {
        let folder = try TemporaryFolder()
        #expect(kind { try SafetensorsWriter(path: folder.file("no/a"), tensors: []) } == .unwritable)
        #expect(kind { try SafetensorsWriter(path: folder.path, tensors: []) } == .unwritable)
        #expect(kind { try SafetensorsWriter(path: "", tensors: []) } == .unwritable)
        #expect(kind { try SafetensorsWriter(path: folder.file("a/"), tensors: []) } == .unwritable)
        // More than any file system can address.
        let huge = TensorDeclaration("a", .uint8, shape: [.max / 8])
        #expect(kind { try SafetensorsWriter(path: folder.file("a"), tensors: [huge]) } != nil)
        #expect(try folder.names() == [])
    }

    /// A memory file system refuses at once what is larger than itself, so no other program's disk gets full here.
    @Test(.enabled(if: memoryFileSystemByteCount() != nil))
    func fullDisk() throws {
        let byteCount = try #require(memoryFileSystemByteCount())
        let folder = try TemporaryFolder(in: memoryFileSystem)
        let path = folder.file("a")
        try write([1], to: path)
        let tensors = [TensorDeclaration("a", .uint8, shape: [byteCount * 2])]
        let error = #expect(throws: SafetensorsError.self) { try SafetensorsWriter(path: path, tensors: tensors) }
        #expect(error?.kind == .diskFull)
        #expect(try folder.names() == ["a"])
        #expect(try read(path) == [1])
    }
}

private let memoryFileSystem = "/dev/shm"

private func memoryFileSystemByteCount() -> Int? {
    var status = statvfs()
    guard access(memoryFileSystem, W_OK) == 0, statvfs(memoryFileSystem, &status) == 0, status.f_blocks > 0 else { return nil }
    return Int(status.f_blocks) * Int(status.f_frsize)
}
