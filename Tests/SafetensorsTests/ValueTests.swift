import Safetensors
import Testing

@Suite struct ValueTests {
    private func file(_ folder: TemporaryFolder, _ dataType: DataType, _ bytes: [UInt8]) throws -> SafetensorsFile {
        let path = folder.file("a")
        let shape = [bytes.count * 8 / dataType.bitCount]
        // A tensor of one byte in front puts the values at an odd address.
        let name = dataType.rawValue
        let header =
            #"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"\#(name)","shape":\#(shape),"#
            + #""data_offsets":[1,\#(bytes.count + 1)]}}"#
        try write(image(header: Array(header.utf8), data: [0] + bytes), to: path)
        return try SafetensorsFile(path: path)
    }

    private func bytes<Value: FixedWidthInteger>(_ values: [Value]) -> [UInt8] {
        values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    }

    private func integersWiden<Value: FixedWidthInteger>(_ dataType: DataType, _: Value.Type) throws {
        let folder = try TemporaryFolder()
        let values: [Value] = [.min, .max, 0, 1, 100]
        let file = try file(folder, dataType, bytes(values))
        if Value.max <= Int64.max {
            let expected = values.map { Int64($0) }
            #expect(try file.int64s("a") == expected)
        } else {
            #expect(kind { try file.int64s("a") } == .valueOutOfRange)
        }
        if Value.max <= Int32.max {
            let expected = values.map { Int32($0) }
            #expect(try file.int32s("a") == expected)
        } else {
            #expect(kind { try file.int32s("a") } == .valueOutOfRange)
        }
        #expect(kind { try file.floats("a") } == .wrongDataType)
    }

    @Test func integers() throws {
        try integersWiden(.bool, UInt8.self)
        try integersWiden(.uint8, UInt8.self)
        try integersWiden(.int8, Int8.self)
        try integersWiden(.uint16, UInt16.self)
        try integersWiden(.int16, Int16.self)
        try integersWiden(.uint32, UInt32.self)
        try integersWiden(.int32, Int32.self)
        try integersWiden(.uint64, UInt64.self)
        try integersWiden(.int64, Int64.self)
    }

    @Test func smallValuesOfWideTypes() throws {
        let folder = try TemporaryFolder()
        #expect(try file(folder, .int64, bytes([-1 as Int64, 151_655])).int32s("a") == [-1, 151_655])
        #expect(try file(folder, .uint64, bytes([7 as UInt64])).int32s("a") == [7])
    }

    /// All 65,536 half-precision numbers.
    @Test func halves() throws {
        let folder = try TemporaryFolder()
        let values = try file(folder, .float16, bytes(Array(UInt16.min ... .max))).floats("a")
        for (bits, value) in zip(UInt16.min ... .max, values) {
            let exponent = Int(bits >> 10 & 31)
            let fraction = Float(bits & 1023)
            let sign: Float = bits & 0x8000 == 0 ? 1 : -1
            switch exponent {
            case 31 where fraction != 0: #expect(value.isNaN)
            case 31: #expect(value == sign * .infinity)
            case 0: #expect(value.bitPattern == (sign * fraction * 0x1p-24).bitPattern)
            default:
                let expected = sign * Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction / 1024)
                #expect(value == expected)
            }
        }
    }

    @Test func widerFloats() throws {
        let folder = try TemporaryFolder()
        let singles: [Float] = [0, -0, 1.5, -.infinity, .leastNonzeroMagnitude, .greatestFiniteMagnitude]
        #expect(try file(folder, .float32, bytes(singles.map(\.bitPattern))).floats("a") == singles)
        let brains = bytes(singles.map { UInt16($0.bitPattern >> 16) })
        #expect(
            try file(folder, .bfloat16, brains).floats("a")
                == singles.map { Float(bitPattern: $0.bitPattern & 0xFFFF_0000) })
        #expect(try file(folder, .float64, bytes([1.5, 1e300].map(\Double.bitPattern))).floats("a") == [1.5, .infinity])
        #expect(kind { try file(folder, .complex64, bytes([0 as UInt64])).floats("a") } == .wrongDataType)
    }

    @Test func unknownNames() throws {
        let folder = try TemporaryFolder()
        let file = try file(folder, .uint8, [1])
        for found in [kind { try file.int32s("b") }, kind { try file.floats("b") }, kind { try file.prefetch("b") }] {
            #expect(found == .noSuchTensor)
        }
        let error = #expect(throws: SafetensorsError.self) { try file.info(of: "b") }
        #expect(error?.description.contains("'x', 'a'") == true)
    }
}
