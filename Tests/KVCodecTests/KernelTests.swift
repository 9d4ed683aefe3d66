import CKVKernels
import KVCodec
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Every build of the inner loops against the portable one: the same bits, whatever the shape.
///
/// Tests of other suites run meanwhile and see the builds change under them, which must make no difference to them either.
@Suite(.serialized) struct KernelTests {
    static let builds = KernelBuild.allCases.filter { $0 != .portable }

    /// What a page decodes to, by tensors, for one build.
    private func decode(
        _ encoded: EncodedPage, tokens: Range<Int>, as elementType: ElementType, _ arrangement: OwnedTensor.Arrangement,
        build: KernelBuild
    ) throws -> [[UInt8]]? {
        guard build.use() else { return nil }
        defer { KernelBuild.useBest() }
        let decoded = try encoded.decode(layer: 0, tokens: tokens, as: elementType, arrangement: arrangement)
        return [decoded.key.bytes, decoded.value.bytes]
    }

    @Test(arguments: Profile.all)
    func decodesTheSameBits(profile: Profile) throws {
        var generator = SplitMix64(seed: UInt64(profile.id))
        for round in 0..<8 {
            let tokens = Int.random(in: 5...150, using: &generator)
            // Halves of whole vectors are turned in registers, other widths by way of memory.
            let isWhole = round % 2 == 1
            let keyDim = isWhole ? 64 * Int.random(in: 1...3, using: &generator) : 2 * Int.random(in: 1...72, using: &generator)
            let interleaved = !isWhole && Bool.random(using: &generator)
            let rotary = RotaryParameters(
                theta: 1e4, dim: isWhole ? keyDim : max(2, keyDim - 2 * Int.random(in: 0...3, using: &generator)),
                pairing: interleaved ? .interleaved : .halves)
            let elementType = ElementType.allCases[round % 3]
            var page = OwnedPage.random(
                heads: Int.random(in: 1...3, using: &generator), tokens: tokens, keyDim: keyDim,
                valueDim: round % 4 == 0 ? 64 : Int.random(in: 1...140, using: &generator), elementType: elementType,
                rotary: round % 3 == 2 ? nil : rotary, seed: generator.next())
            page.salient = Array(Set((0..<tokens / 4).map { _ in Int.random(in: 0..<tokens, using: &generator) })).sorted()
            page.identity.firstToken = round % 2 == 0 ? 0 : 1 << 19
            var options = EncoderOptions()
            options.groupSize = [32, 8, 64, 40][round % 4]
            let encoded = try page.encode(profile, options: options)
            let first = Int.random(in: 0..<tokens, using: &generator)
            for range in [0..<tokens, first..<tokens] {
                let output = ElementType.allCases.randomElement(using: &generator) ?? .float32
                let arrangement = OwnedTensor.Arrangement.allCases.randomElement(using: &generator) ?? .padded
                let expected = try decode(encoded, tokens: range, as: output, arrangement, build: .portable)
                for build in Self.builds {
                    guard let bits = try decode(encoded, tokens: range, as: output, arrangement, build: build) else { continue }
                    #expect(bits == expected, "\(profile) \(build) \(output) \(arrangement) round \(round)")
                }
            }
        }
    }

    @Test(arguments: Profile.all)
    func encodesTheSameBytes(profile: Profile) throws {
        var generator = SplitMix64(seed: UInt64(profile.id) + 100)
        defer { KernelBuild.useBest() }
        for round in 0..<6 {
            // Halves of whole vectors are turned as they are loaded, other widths afterwards.
            let keyDim =
                round % 2 == 1 ? 64 * Int.random(in: 1...3, using: &generator) : 2 * Int.random(in: 4...72, using: &generator)
            var page = OwnedPage.random(
                heads: Int.random(in: 1...3, using: &generator), tokens: Int.random(in: 5...150, using: &generator),
                keyDim: keyDim,
                valueDim: Int.random(in: 1...140, using: &generator), elementType: ElementType.allCases[round % 3],
                rotary: round % 3 == 0 ? nil : RotaryParameters(theta: 1e4, dim: keyDim), seed: generator.next())
            page.identity.firstToken = round % 2 == 0 ? 0 : 512
            var options = EncoderOptions()
            options.groupSize = [32, 8, 64, 40][round % 4]
            options.levels = [.centroid, .published, .magnitude][round % 3]
            options.scaleSearch = [.leastSquares, .clip, .minMax][round / 2]
            #expect(KernelBuild.portable.use())
            let expected = try page.encode(profile, options: options).bytes
            for build in Self.builds where build.use() {
                #expect(try page.encode(profile, options: options).bytes == expected, "\(profile) \(build) round \(round)")
            }
        }
    }

    /// Rows of whole cache lines take a way of their own, past the caches; memory around them must stay as it is.
    @Test(arguments: KernelBuild.allCases, ElementType.allCases)
    func writesWholeLinesAlike(build: KernelBuild, elementType: ElementType) throws {
        guard build.use() else { return }
        defer { KernelBuild.useBest() }
        for profile in Profile.all {
            let page = OwnedPage.random(
                tokens: 75, keyDim: 64, valueDim: 128, elementType: elementType, rotary: RotaryParameters(theta: 1e4, dim: 64),
                seed: 11)
            let encoded = try page.encode(profile)
            let expected = try encoded.decode(layer: 0, as: elementType, arrangement: .tokensFirst)
            let size = 2 * 75 * 64 * elementType.byteCount
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 3 * size + 128, alignment: 64)
            defer { memory.deallocate() }
            memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
            try encoded.withImage { image in
                let views = try [(0, 64), (size, 128)].map { offset, dim in
                    try MutableTensorView(
                        bytes: memory, offset: 64 + offset, elementType: elementType,
                        layout: .tokensFirst(heads: 2, tokens: 75, dim: dim))
                }
                try image.decode(layer: 0, tokens: 0..<75, key: views[0], value: views[1], scratch: DecodeScratch())
            }
            #expect(memory[..<64].allSatisfy { $0 == 0xA5 } && memory[(64 + 3 * size)...].allSatisfy { $0 == 0xA5 })
            #expect(Array(memory[64..<64 + size]) == Array(expected.key.bytes[expected.key.offset...]), "\(profile)")
            #expect(
                Array(memory[64 + size..<64 + 3 * size]) == Array(expected.value.bytes[expected.value.offset...]), "\(profile)")
        }
    }

    @Test(arguments: builds)
    func roundsEveryKindOfValueAlike(build: KernelBuild) throws {
        guard build.use() else { return }
        defer { KernelBuild.useBest() }
        var generator = SplitMix64(seed: 9)
        // Subnormals and NaNs of all sorts among ordinary values, in vectors with and without them.
        let special: [UInt32] = [
            0, 1, 0x007F_FFFF, 0x0080_0000, 0x3380_0000, 0x3300_0000, 0x3300_0001, 0x387F_F000, 0x387F_E000, 0x3880_0000,
            0x477F_E000, 0x477F_F000, 0x477F_EFFF, 0x7F7F_FFFF, 0x7F7F_8000, 0x7F80_0000, 0x7F80_0001, 0x7FA0_1234, 0x7FC0_0001,
            0x7FFF_FFFF, 0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x3F80_7FFF, 0x3F80_1000, 0x3F80_3000,
        ]
        var bits: [UInt32] = []
        for index in 0..<64 * 128 {
            let isSpecial = index / 128 % 2 == 0 && Int.random(in: 0..<8, using: &generator) == 0
            let sign = UInt32.random(in: 0...1, using: &generator) << 31
            bits.append(isSpecial ? sign | special[index % special.count] : UInt32.random(in: 0...UInt32.max, using: &generator))
        }
        let values = bits.map { Float(bitPattern: $0) }
        for (elementType, arrangement) in [
            (ElementType.bfloat16, OwnedTensor.Arrangement.headsFirst), (.float16, .headsFirst), (.bfloat16, .padded),
            (.float16, .channelsFirst),
        ] {
            var page = OwnedPage.random(heads: 1, tokens: 64, keyDim: 128, valueDim: 128, elementType: .float32, seed: 1)
            page.layers[0]?.key = OwnedTensor(values: values, heads: 1, tokens: 64, dim: 128, elementType: .float32)
            let decoded = try page.encode(.exact).decode(layer: 0, as: elementType, arrangement: arrangement)
            let expected = values.map { elementType == .float16 ? halfBits(of: $0) : elementType.bits(of: $0) }
            #expect(decoded.key.allBits == expected, "\(build) \(elementType) \(arrangement)")
        }
    }

    /// Values that no page of finite tensors has, but one that somebody made up may.
    @Test("Turned keys are rounded as others are, infinities and NaNs among them too", arguments: KernelBuild.allCases)
    func turnsEveryKindOfValue(build: KernelBuild) throws {
        guard build.use() else { return }
        defer { KernelBuild.useBest() }
        var generator = SplitMix64(seed: 12)
        let (dim, count) = (128, Int(KV_LANES))
        let special: [Float] = [.infinity, -.infinity, .nan, Float(bitPattern: 0x7FFF_FFFF), 3e38, -3e38, 1e-40, 0]
        for round in 0..<12 {
            let values = (0..<count * dim).map { index -> Float in
                // every other row and some whole tiles have none
                let isSpecial = round % 3 > 0 && index / dim % 2 == 0 && Int.random(in: 0..<40, using: &generator) == 0
                return isSpecial ? special[index % special.count] : Float.random(in: -9...9, using: &generator)
            }
            let cosines = (0..<count * dim / 2).map { _ in Float.random(in: -1...1, using: &generator) }
            let sines = (0..<count * dim / 2).map { _ in Float.random(in: -1...1, using: &generator) }
            for elementType in [ElementType.float16, .bfloat16] {
                let out = UnsafeMutableRawBufferPointer.allocate(byteCount: count * dim * 2, alignment: 64)
                defer { out.deallocate() }
                let found = out.bindMemory(to: UInt16.self)
                var places = kv_rows16()
                places.streams = Int32(round % 2)
                withUnsafeMutableBytes(of: &places.row) { rows in
                    for row in 0..<count {
                        rows.bindMemory(to: UnsafeMutablePointer<UInt16>?.self)[row] = found.baseAddress.map { $0 + row * dim }
                    }
                }
                withUnsafeMutableBytes(of: &places.token) { tokens in
                    for row in 0..<count { tokens.bindMemory(to: UInt32.self)[row] = UInt32(row) }
                }
                kv_store_rotated16(Int32(elementType.rawValue), values, count, dim, cosines, sines, &places)
                kv_finish_stores()
                for row in 0..<count {
                    for pair in 0..<dim / 2 {
                        let (a, b) = (values[row * dim + pair], values[row * dim + dim / 2 + pair])
                        let (x, y) = (cosines[row * dim / 2 + pair], sines[row * dim / 2 + pair])
                        for (channel, expected) in [(pair, a * x - b * y), (pair + dim / 2, b * x + a * y)] {
                            let bits = found[row * dim + channel]
                            let isRight =
                                expected.isNaN
                                ? isNaN(bits, elementType) : UInt32(bits) == UInt32(elementType.bits(of: expected))
                            #expect(isRight, "\(build) \(elementType) row \(row) channel \(channel): \(bits) for \(expected)")
                        }
                    }
                }
            }
        }
    }

    private func isNaN(_ bits: UInt16, _ elementType: ElementType) -> Bool {
        bits & 0x7FFF > (elementType == .float16 ? 0x7C00 : 0x7F80)
    }

    /// As Float16's conversion does where the processor has one, NaN payloads included.
    private func halfBits(of value: Float) -> UInt32 {
        guard value.isNaN else { return ElementType.float16.bits(of: value) }
        return value.bitPattern >> 16 & 0x8000 | 0x7E00 | value.bitPattern >> 13 & 0x1FF
    }

    @Test(arguments: KernelBuild.allCases)
    func anglesAreTheNearestFloats(build: KernelBuild) throws {
        guard build.use() else { return }
        defer { KernelBuild.useBest() }
        var generator = SplitMix64(seed: 3)
        for _ in 0..<400 {
            let count = Int.random(in: 1...70, using: &generator)
            let position = Double(
                Int32.random(in: .min...(.max), using: &generator) >> Int32.random(in: 0...31, using: &generator))
            let frequencies = (0..<count).map { _ in Double(Float.random(in: 0...1, using: &generator)) }
            let angles = RotaryAngles.at(position: position, frequencies: frequencies)
            for (index, frequency) in frequencies.enumerated() {
                #expect(angles.cosines[index] == Float(cos(position * frequency)))
                #expect(angles.sines[index] == Float(sin(position * frequency)))
            }
        }
    }
}
