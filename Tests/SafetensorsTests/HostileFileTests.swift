import Safetensors
import Testing

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Files that are damaged, or made to do damage.
@Suite struct HostileFileTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let kind: SafetensorsError.Kind
        var tensor: String?
        let header: String
        var dataByteCount = 4

        var testDescription: String { "\(kind): \(header.prefix(80))" }
    }

    static let cases: [Case] =
        malformed + [
            Case(
                kind: .duplicateName, tensor: "a",
                header:
                    #"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#),
            // The same name, once written with an escape.
            Case(
                kind: .duplicateName, tensor: "a",
                header: #"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"\u0061":{"dtype":"U8","shape":[2],"#
                    + #""data_offsets":[2,4]}}"#),
            Case(kind: .duplicateName, header: #"{"__metadata__":{"k":"1","k":"2"}}"#, dataByteCount: 0),
            Case(
                kind: .duplicateName, tensor: "__metadata__", header: #"{"__metadata__":{},"__metadata__":{}}"#, dataByteCount: 0),
            Case(kind: .unknownDataType, tensor: "a", header: tensor(type: "F17", shape: "[1]", offsets: "[0,4]")),
            Case(kind: .unknownDataType, tensor: "a", header: tensor(type: "f32", shape: "[1]", offsets: "[0,4]")),
            Case(
                kind: .shapeOverflow, tensor: "a",
                header: tensor(type: "F32", shape: "[4294967296,4294967296]", offsets: "[0,4]")),
            Case(
                kind: .shapeOverflow, tensor: "a", header: tensor(type: "F32", shape: "[18446744073709551615]", offsets: "[0,4]")),
            // The elements can be counted, their bits cannot.
            Case(
                kind: .shapeOverflow, tensor: "a", header: tensor(type: "F64", shape: "[4611686018427387904]", offsets: "[0,4]")),
            Case(
                kind: .shapeOverflow, tensor: "a",
                header: tensor(type: "U8", shape: "[4294967296,4294967296,0]", offsets: "[0,0]"), dataByteCount: 0),
            Case(kind: .sizeMismatch, tensor: "a", header: tensor(type: "F32", shape: "[2]", offsets: "[0,4]")),
            Case(kind: .sizeMismatch, tensor: "a", header: tensor(type: "F32", shape: "[0]", offsets: "[0,4]")),
            Case(kind: .sizeMismatch, tensor: "a", header: tensor(type: "F16", shape: "[]", offsets: "[0,4]")),
            Case(kind: .sizeMismatch, tensor: "a", header: tensor(type: "F4", shape: "[9]", offsets: "[0,4]")),
            Case(kind: .rangeOutOfBounds, tensor: "a", header: tensor(type: "F32", shape: "[2]", offsets: "[0,8]")),
            Case(kind: .rangeOutOfBounds, tensor: "a", header: tensor(type: "F32", shape: "[1]", offsets: "[4,0]")),
            Case(
                kind: .rangeOutOfBounds, tensor: "a",
                header: tensor(type: "F32", shape: "[1]", offsets: "[18446744073709551612,18446744073709551615]")),
            Case(
                kind: .overlap, tensor: "b",
                header:
                    #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#),
            Case(
                kind: .overlap, tensor: "b",
                header:
                    #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#),
            Case(
                kind: .hole, tensor: "b",
                header:
                    #"{"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#),
            Case(kind: .hole, tensor: "a", header: tensor(type: "U8", shape: "[3]", offsets: "[1,4]")),
            Case(kind: .hole, header: tensor(type: "U8", shape: "[3]", offsets: "[0,3]")),
            Case(kind: .hole, header: "{}"),
        ]

    /// Headers that are no JSON, or not the JSON of the format.
    static let malformed: [Case] = [
        "", " {}", "[]", "null", "{", "{}{}", "{} x", #"{"a"}"#, #"{"a":}"#, #"{"a":{}}"#, #"{"a":1}"#, #"{"a":null}"#,
        #"{a:{}}"#,
        #"{"a":{"dtype":"U8"}}"#, #"{"a":{"dtype":8,"shape":[4],"data_offsets":[0,4]}}"#,
        tensor(type: "U8", shape: "[4],", offsets: "[0,4]"), tensor(type: "U8", shape: "4", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[-4]", offsets: "[0,4]"), tensor(type: "U8", shape: "[4.0]", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[4e0]", offsets: "[0,4]"), tensor(type: "U8", shape: "[04]", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[[4]]", offsets: "[0,4]"), tensor(type: "U8", shape: "[4,]", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[18446744073709551616]", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[99999999999999999999999999]", offsets: "[0,4]"),
        tensor(type: "U8", shape: "[4]", offsets: "[0]"), tensor(type: "U8", shape: "[4]", offsets: "[0,4,4]"),
        tensor(type: "U8", shape: "[4]", offsets: "[0,4],\"dtype\":\"U8\""),
        tensor(type: "U8", shape: "[4]", offsets: "[0,4],\"stride\":[1]"),
        tensor(type: "U8", shape: "[4]", offsets: "[0,4]") + "\u{0}",
        #"{"a\"# + "\n" + #"":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        "{\"a\u{1}\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
        #"{"a\x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, #"{"\ud83d":{}}"#, #"{"\udddd":{}}"#, #"{"\ud83dA":{}}"#,
        #"{"\u12"#, #"{"\u12g4":{}}"#, #"{"\"#, #"{"a"#, #"{"__metadata__":{"a":1}}"#, #"{"__metadata__":[]}"#,
        #"{"__metadata__":null}"#, String(repeating: "[", count: 100_000), String(repeating: #"{"a":"#, count: 100_000),
    ].map { Case(kind: .headerMalformed, header: $0) }

    static func tensor(type: String, shape: String, offsets: String) -> String {
        "{\"a\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}}"
    }

    @Test(arguments: cases)
    func refused(_ test: Case) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("hostile.safetensors")
        try write(image(header: test.header, dataByteCount: test.dataByteCount), to: path)
        let error = #expect(throws: SafetensorsError.self) { try SafetensorsFile(path: path) }
        #expect(error?.kind == test.kind, "\(String(describing: error))")
        #expect(error?.tensor == test.tensor)
        #expect(error?.description.hasPrefix(path + ": ") == true)
        #expect(error?.description.contains("\n") == false)
    }

    @Test func notUTF8() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        try write(image(header: Array("{\"".utf8) + [0xFF, 0xC0] + Array("\":{}}".utf8), data: []), to: path)
        #expect(kind { try SafetensorsFile(path: path) } == .headerMalformed)
    }

    @Test func headerLength() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        for (length, expected) in [
            (UInt64(100_000_001), SafetensorsError.Kind.headerTooLarge), (.max, .headerTooLarge), (1 << 63, .headerTooLarge),
            (100_000_000, .headerTruncated), (3, .headerTruncated),
        ] {
            try write(withUnsafeBytes(of: length.littleEndian) { Array($0) } + [0x7B, 0x7D], to: path)
            #expect(kind { try SafetensorsFile(path: path) } == expected, "\(length)")
        }
    }

    @Test func noFile() throws {
        let folder = try TemporaryFolder()
        #expect(kind { try SafetensorsFile(path: folder.file("missing")) } == .unreadable)
        #expect(kind { try SafetensorsFile(path: folder.path) } == .unreadable)
        #expect(kind { try SafetensorsFile(path: "/dev/null") } == .unreadable)
        let pipe = folder.file("pipe")
        try #require(mkfifo(pipe, 0o600) == 0)
        #expect(kind { try SafetensorsFile(path: pipe) } == .unreadable)
    }

    /// A valid file, cut at every length, is refused at every length.
    @Test func cutAnywhere() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        let whole = try validImage(folder)
        for count in whole.indices {
            try write(Array(whole[..<count]), to: path)
            let found = kind { try SafetensorsFile(path: path) }
            let expected: SafetensorsError.Kind = count < 8 ? .tooShort : .headerTruncated
            #expect(count >= whole.count - dataByteCount ? found == .rangeOutOfBounds : found == expected, "\(count)")
        }
    }

    /// Whatever bytes change, opening ends in an error or in a file that describes each of its bytes.
    @Test(arguments: 0..<8)
    func randomDamage(seed: Int) throws {
        var random = SeededGenerator(UInt64(seed))
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        let whole = try validImage(folder)
        let interesting = Array("{}[]:,\"\\0123456789eE-.utfFBIU \n".utf8) + [0, 0x1F, 0x7F, 0x80, 0xFF]
        var refusedCount = 0
        for _ in 0..<250 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let offset = Int.random(in: 0..<bytes.count - dataByteCount, using: &random)
                bytes[offset] = interesting.randomElement(using: &random) ?? 0
            }
            try write(bytes, to: path)
            do {
                let file = try SafetensorsFile(path: path)
                let counts = try file.names.map { try file.bytes(of: $0).count }
                #expect(counts.reduce(0, +) <= bytes.count)
            } catch is SafetensorsError {
                refusedCount += 1
            }
        }
        #expect(refusedCount > 100)
    }

    @Test func cutWhileOpen() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        let whole = try validImage(folder)
        try write(whole, to: path)
        let file = try SafetensorsFile(path: path)
        #expect(try file.bytes(of: "layers.0.key").count == 24)
        try #require(truncate(path, off_t(whole.count - 1)) == 0)
        #expect(kind { try file.bytes(of: "layers.0.key") } == .changedWhileOpen)
        try write(whole, to: path)
        #expect(try file.bytes(of: "layers.0.key").count == 24)
    }

    @Test func longNamesAreCutInMessages() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        let name = "\\u001b[31m" + String(repeating: "n", count: 100_000)
        try write(image(header: #"{"\#(name)":{"dtype":"X","shape":[],"data_offsets":[0,0]}}"#, dataByteCount: 0), to: path)
        let error = #expect(throws: SafetensorsError.self) { try SafetensorsFile(path: path) }
        let description = try #require(error?.description)
        #expect(description.utf8.count < 1_000)
        #expect(!description.unicodeScalars.contains("\u{1b}"))
    }

    // MARK: -

    private let dataByteCount = 40

    private func validImage(_ folder: TemporaryFolder) throws -> [UInt8] {
        let path = folder.file("valid")
        let writer = try SafetensorsWriter(
            path: path,
            tensors: [.init("layers.0.key", .bfloat16, shape: [1, 3, 4]), .init("input_ids", .int64, shape: [2])],
            metadata: ["format": "pt"])
        try writer.finish()
        return try read(path)
    }
}

/// The kind of the error that `body` throws.
func kind(_ body: () throws -> some Any) -> SafetensorsError.Kind? {
    do {
        _ = try body()
        return nil
    } catch {
        return (error as? SafetensorsError)?.kind
    }
}
