/// Copies of small tensors as Swift arrays. Large ones are better read where they lie, by `withBytes(of:)`.
extension SafetensorsFile {
    /// The integers of a tensor, rows first.
    ///
    /// - Throws: `.wrongDataType` unless the elements are integers or truth values, `.valueOutOfRange` for one that does not
    ///   fit 32 bits.
    public func int32s(_ name: String) throws -> [Int32] {
        try integers(name, as: Int32.self)
    }

    /// The integers of a tensor, rows first.
    ///
    /// - Throws: `.wrongDataType` unless the elements are integers or truth values, `.valueOutOfRange` for one that does not
    ///   fit 64 bits with a sign.
    public func int64s(_ name: String) throws -> [Int64] {
        try integers(name, as: Int64.self)
    }

    /// The numbers of a tensor of 16- or 32-bit floats, rows first, every one exact; 64-bit floats are rounded.
    ///
    /// - Throws: `.wrongDataType` for elements of other types.
    public func floats(_ name: String) throws -> [Float] {
        let tensor = try info(of: name)
        return try withBytes(of: name) { (bytes) throws(SafetensorsError) in
            switch tensor.dataType {
            case .float16: elements(bytes) { floatOfHalf(UInt16(littleEndian: $0)) }
            case .bfloat16: elements(bytes) { Float(bitPattern: UInt32(UInt16(littleEndian: $0)) << 16) }
            case .float32: elements(bytes) { Float(bitPattern: UInt32(littleEndian: $0)) }
            case .float64: elements(bytes) { Float(Double(bitPattern: UInt64(littleEndian: $0))) }
            default: throw wrongDataType(tensor, "F16, BF16, F32 or F64")
            }
        }
    }

    // MARK: - Details

    private func integers<Value: FixedWidthInteger>(_ name: String, as _: Value.Type) throws -> [Value] {
        let tensor = try info(of: name)
        return try withBytes(of: name) { (bytes) throws(SafetensorsError) in
            switch tensor.dataType {
            case .bool, .uint8: try integers(bytes, UInt8.self, tensor)
            case .int8: try integers(bytes, Int8.self, tensor)
            case .uint16: try integers(bytes, UInt16.self, tensor)
            case .int16: try integers(bytes, Int16.self, tensor)
            case .uint32: try integers(bytes, UInt32.self, tensor)
            case .int32: try integers(bytes, Int32.self, tensor)
            case .uint64: try integers(bytes, UInt64.self, tensor)
            case .int64: try integers(bytes, Int64.self, tensor)
            default: throw wrongDataType(tensor, "an integer type (I64, I32, …)")
            }
        }
    }

    private func integers<Stored: FixedWidthInteger, Value: FixedWidthInteger>(
        _ bytes: UnsafeRawBufferPointer, _: Stored.Type, _ tensor: TensorInfo
    ) throws(SafetensorsError) -> [Value] {
        var result: [Value] = []
        result.reserveCapacity(tensor.elementCount)
        for index in 0..<tensor.elementCount {
            let stored = Stored(
                littleEndian: bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Stored>.size, as: Stored.self))
            guard let value = Value(exactly: stored) else {
                throw SafetensorsError(
                    .valueOutOfRange, file: path, tensor: tensor.name,
                    "element \(index) is \(stored), which does not fit \(Value.bitWidth) bits.")
            }
            result.append(value)
        }
        return result
    }

    private func wrongDataType(_ tensor: TensorInfo, _ wanted: String) -> SafetensorsError {
        SafetensorsError(
            .wrongDataType, file: path, tensor: tensor.name,
            "its elements are \(tensor.dataType.rawValue), but \(wanted) is needed here; convert the tensor.")
    }
}

private func elements<Bits: BitwiseCopyable>(
    _ bytes: UnsafeRawBufferPointer, _ value: (Bits) -> Float
) -> [Float] {
    let count = bytes.count / MemoryLayout<Bits>.size
    return [Float](unsafeUninitializedCapacity: count) { result, resultCount in
        for index in 0..<count {
            let bits = bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Bits>.size, as: Bits.self)
            result.initializeElement(at: index, to: value(bits))
        }
        resultCount = count
    }
}

/// A half-precision number, widened. Swift's own conversion is a library call on x86-64 without F16C.
private func floatOfHalf(_ bits: UInt16) -> Float {
    let magnitude = UInt32(bits & 0x7FFF) << 13
    let sign = UInt32(bits & 0x8000) << 16
    if magnitude >= 0x7C00 << 13 {
        // Infinity and NaN: the exponent is all ones in both formats.
        return Float(bitPattern: sign | magnitude | 0x7F80_0000)
    }
    // The exponent's bias differs by 112; the product is exact, also for subnormal numbers.
    let scaled = Float(bitPattern: magnitude) * 0x1p112
    return Float(bitPattern: sign | scaled.bitPattern)
}
