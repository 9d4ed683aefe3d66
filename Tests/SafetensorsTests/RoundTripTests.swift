import Safetensors
import Testing

/// What a writer wrote, a reader finds.
@Suite struct RoundTripTests {
    /// Names and texts that JSON has to escape, or that are no ASCII.
    static let texts = [
        "layers.0.key", "0.0", "", " ", "\"", "\\", "a/b", "tab\tnewline\n\r", "\u{0}\u{1F}\u{7F}", "ключ", "鍵🗝️", "e\u{301}",
        "\u{2028}", "dtype", "__metadata", String(repeating: "x", count: 5_000),
    ]

    @Test(arguments: 0..<60)
    func randomFiles(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let folder = try TemporaryFolder()
        let path = folder.file("a.safetensors")
        let names = Self.texts.shuffled(using: &random).prefix(Int.random(in: 0...8, using: &random))
        let declarations = names.map { randomDeclaration($0, &random) }
        var metadata: [String: String] = [:]
        for key in Self.texts.shuffled(using: &random).prefix(Int.random(in: 0...4, using: &random)) {
            metadata[key] = Self.texts.randomElement(using: &random)
        }

        let writer = try SafetensorsWriter(path: path, tensors: declarations, metadata: metadata)
        var contents: [String: [UInt8]] = [:]
        for tensor in writer.tensors.shuffled(using: &random) {
            let bytes = (0..<tensor.byteCount).map { _ in UInt8.random(in: .min ... .max, using: &random) }
            contents[tensor.name] = bytes
            try fill(writer, tensor.name, with: bytes, &random)
        }
        try writer.finish()

        let file = try SafetensorsFile(path: path)
        #expect(file.metadata == metadata)
        #expect(file.names == writer.tensors.map(\.name))
        #expect(Set(file.names) == Set(names))
        for declaration in declarations {
            let info = try file.info(of: declaration.name)
            #expect(info.dataType == declaration.dataType)
            #expect(info.shape == declaration.shape)
            #expect(info.elementCount == declaration.shape.reduce(1, *))
            #expect(try file.bytes(of: declaration.name) == contents[declaration.name])
        }
        #expect(try read(path).count == writer.byteCount)
        #expect(try folder.names() == ["a.safetensors"])
    }

    /// Alternates between mapping a tensor and writing pieces of it.
    private func fill(
        _ writer: SafetensorsWriter, _ name: String, with bytes: [UInt8], _ random: inout SeededGenerator
    ) throws {
        let cut = Int.random(in: 0...bytes.count, using: &random)
        if Bool.random(using: &random) {
            try writer.withMutableBytes(of: name) { target in
                #expect(target.allSatisfy { $0 == 0 })
                target.copyBytes(from: bytes[..<cut])
            }
            try bytes[cut...].withUnsafeBytes { try writer.write($0, to: name, at: cut) }
        } else {
            try bytes[cut...].withUnsafeBytes { try writer.write($0, to: name, at: cut) }
            try bytes[..<cut].withUnsafeBytes { try writer.write($0, to: name) }
            try writer.withMutableBytes(of: name) { #expect(Array($0) == bytes) }
        }
    }

    private func randomDeclaration(_ name: String, _ random: inout SeededGenerator) -> TensorDeclaration {
        let rank = Int.random(in: 0...4, using: &random)
        var shape = (0..<rank).map { _ in Int.random(in: 0...9, using: &random) }
        let dataType = DataType.allCases.randomElement(using: &random) ?? .float32
        // Elements narrower than a byte must fill whole bytes.
        if !dataType.bitCount.isMultiple(of: 8) { shape.append(4) }
        return TensorDeclaration(name, dataType, shape: shape)
    }

    @Test func layout() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a.safetensors")
        let writer = try SafetensorsWriter(
            path: path,
            tensors: [
                .init("odd", .uint8, shape: [3]), .init("k", .bfloat16, shape: [1, 2]), .init("ids", .int64, shape: [1]),
                .init("v", .bfloat16, shape: [1, 2]),
            ],
            metadata: ["b": "2", "a": "1"])
        try writer.finish()
        let bytes = try read(path)
        let header =
            #"{"__metadata__":{"a":"1","b":"2"},"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"#
            + #""k":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]},"#
            + #""v":{"dtype":"BF16","shape":[1,2],"data_offsets":[12,16]},"#
            + #""odd":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}"#
        #expect(bytes[..<8].elementsEqual(withUnsafeBytes(of: UInt64(bytes.count - 8 - 19).littleEndian) { Array($0) }))
        #expect((bytes.count - 19).isMultiple(of: 8))
        #expect(String(decoding: bytes[8..<bytes.count - 19], as: UTF8.self).hasPrefix(header))
        #expect(bytes[(8 + header.utf8.count)..<(bytes.count - 19)].allSatisfy { $0 == UInt8(ascii: " ") })
        #expect(bytes.suffix(19).allSatisfy { $0 == 0 })
    }

    @Test func headerWrittenByOthers() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a.safetensors")
        // White space, entries out of file order, escapes, an empty tensor between two others, a scalar.
        let header = """
            { "b\\u0061\\ud83d\\udddd\\/" : { "data_offsets" : [4, 6], "shape": [ ], "dtype":"F16" } ,
            "first": {"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},
            "empty": {"dtype":"F32","shape":[5,0],"data_offsets":[4,4]}}\t \n
            """
        try write(image(header: Array(header.utf8), data: [1, 2, 3, 4, 5, 6]), to: path)
        let file = try SafetensorsFile(path: path)
        #expect(file.names == ["first", "empty", "ba🗝/"])
        #expect(try file.bytes(of: "first") == [1, 2, 3, 4])
        #expect(try file.bytes(of: "empty") == [])
        #expect(try file.bytes(of: "ba🗝/") == [5, 6])
        #expect(file.tensors["ba🗝/"]?.shape == [])
        #expect(file.metadata.isEmpty)
    }

    @Test func readsFromManyTasks() async throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a.safetensors")
        let names = (0..<16).map { "layers.\($0).key" }
        let writer = try SafetensorsWriter(path: path, tensors: names.map { .init($0, .uint8, shape: [70_001]) })
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, name) in names.enumerated() {
                group.addTask {
                    try writer.withMutableBytes(of: name) { bytes in
                        for offset in bytes.indices { bytes[offset] = UInt8(truncatingIfNeeded: index &+ offset) }
                    }
                }
            }
            try await group.waitForAll()
        }
        try writer.finish()
        let file = try SafetensorsFile(path: path)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for (index, name) in names.enumerated() {
                group.addTask {
                    try file.prefetch(name)
                    let right = try file.withBytes(of: name) { bytes in
                        bytes.count == 70_001
                            && bytes.indices.allSatisfy { bytes[$0] == UInt8(truncatingIfNeeded: index &+ $0) }
                    }
                    file.releaseResidentPages()
                    return right
                }
            }
            for try await right in group { #expect(right) }
        }
    }
}
