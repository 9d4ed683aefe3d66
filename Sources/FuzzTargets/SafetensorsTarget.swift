import Safetensors

func fuzzSafetensors(_ bytes: UnsafeRawBufferPointer) throws {
    try ScratchFolder.shared.withFile("fuzz.safetensors", bytes) { path in
        try allowing(SafetensorsError.self) {
            let file = try SafetensorsFile(path: path)
            for name in file.names {
                let info = try file.info(of: name)
                var sum: UInt64 = 0
                try file.withBytes(of: name) { bytes in
                    for byte in bytes { sum &+= UInt64(byte) }
                    guard bytes.count == info.byteCount else { throw FuzzFinding("\(name) has \(bytes.count) bytes") }
                }
                try file.prefetch(name)
                try allowing(SafetensorsError.self) { _ = try file.floats(name) }
                try allowing(SafetensorsError.self) { _ = try file.int32s(name) }
                try allowing(SafetensorsError.self) { _ = try file.int64s(name) }
            }
        }
    }
}
