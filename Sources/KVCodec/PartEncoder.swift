import CKVKernels

/// Quantizes the rows of some tokens of one tensor: one part, or two for keys of mixed precision.
struct PartEncoder {
    let tensor: TensorKind
    let classes: UInt8
    let plan: TensorPlan
    let options: EncoderOptions
    let flags: PartFlags
    let scratch: EncodeScratch

    /// - Returns: sums over the values as they are quantized. Turning and transforming keeps lengths, so they are those of the tensor
    ///   too, but for the rounding of both.
    func encode(_ rows: HeadRows, into section: inout SectionBuilder) -> SquareSums {
        if plan.alongChannels {
            return encodeAlongChannels(rows, into: &section)
        } else if let fraction = plan.anomalousFraction {
            // a masked part leaves something to the other: heads of one or two channels would round to all of them
            let anomalous = min(Int((fraction * Double(rows.dim)).rounded()), rows.dim - 1)
            return encodeMixed(rows, anomalous: anomalous, into: &section)
        } else {
            var streams = PartStreams(
                codeBits: plan.quantizer.codeBits, group: options.groupSize, heads: rows.heads, rows: rows.tokens,
                columns: rows.dim, scratch: scratch)
            for head in 0..<rows.heads {
                streams.append(rows.head(head), quantizer: kernelQuantizer(plan.quantizer), scratch: scratch)
            }
            streams.add(record(plan.quantizer, .all, channels: rows.dim, flags: flags), mask: nil, to: &section, scratch: scratch)
            return streams.sums
        }
    }

    private func record(_ quantizer: Quantizer, _ set: ChannelSet, channels: Int, flags: PartFlags) -> PartRecord {
        PartRecord(
            tensor: tensor.rawValue, tokenClasses: classes, scheme: quantizer.scheme.rawValue,
            codeBits: UInt8(quantizer.codeBits),
            flags: flags.rawValue, channelSet: set.rawValue, meanShift: UInt8(kernelQuantizer(quantizer).mean_shift),
            streamCount: 0,
            groupSize: UInt16(options.groupSize), channelCount: UInt16(channels))
    }

    private func encodeAlongChannels(_ rows: HeadRows, into section: inout SectionBuilder) -> SquareSums {
        var streams = PartStreams(
            codeBits: plan.quantizer.codeBits, group: options.groupSize, heads: rows.heads, rows: rows.dim, columns: rows.tokens,
            scratch: scratch)
        let turned = scratch.array(.gathered, rows.tokens * rows.dim, of: Float.self)
        for head in 0..<rows.heads {
            kv_transpose(rows.head(head), rows.tokens, rows.dim, rows.dim, turned, rows.tokens)
            streams.append(turned, quantizer: kernelQuantizer(plan.quantizer), scratch: scratch)
        }
        let record = record(plan.quantizer, .all, channels: rows.dim, flags: flags.union(.alongChannels))
        streams.add(record, mask: nil, to: &section, scratch: scratch)
        return streams.sums
    }

    /// The anomalous channels at 2 bits as they are, the others at 1 bit after a Fourier transform (VidKV, section 3.2).
    private func encodeMixed(_ rows: HeadRows, anomalous: Int, into section: inout SectionBuilder) -> SquareSums {
        let rest = rows.dim - anomalous
        let masks = AnomalousChannels(rows: rows, count: anomalous, options: options)
        let anomalousQuantizer = Quantizer.uniform(bits: 2)
        var masked = PartStreams(
            codeBits: anomalousQuantizer.codeBits, group: options.groupSize, heads: rows.heads, rows: rows.tokens,
            columns: anomalous, second: true, scratch: scratch)
        var unmasked = PartStreams(
            codeBits: plan.quantizer.codeBits, group: options.groupSize, heads: rows.heads, rows: rows.tokens, columns: rest,
            scratch: scratch)
        let fourier = options.transformsKeys ? scratch.fourierPlan(length: rest) : nil
        let own = scratch.array(.gathered, rows.tokens * anomalous, of: Float.self)
        let others = scratch.array(.gatheredRest, rows.tokens * rest, of: Float.self)
        for head in 0..<rows.heads {
            masks.withChannels(of: head) {
                kv_split_channels(rows.head(head), rows.tokens, rows.dim, $0, anomalous, own, $1, others)
            }
            if anomalous > 0 { masked.append(own, quantizer: kernelQuantizer(anomalousQuantizer), scratch: scratch) }
            fourier?.transform(others, count: rows.tokens, inverse: false)
            unmasked.append(others, quantizer: kernelQuantizer(plan.quantizer), scratch: scratch)
        }
        if anomalous > 0 {
            let record = record(anomalousQuantizer, .masked, channels: anomalous, flags: flags)
            masked.add(record, mask: masks.bytes, to: &section, scratch: scratch)
        }
        let restFlags = fourier == nil ? flags : flags.union(.fourier)
        let record = record(plan.quantizer, anomalous > 0 ? .unmasked : .all, channels: rest, flags: restFlags)
        unmasked.add(record, mask: nil, to: &section, scratch: scratch)
        return masked.sums + unmasked.sums
    }

    private func kernelQuantizer(_ quantizer: Quantizer) -> kv_quantizer {
        kv_quantizer(quantizer, tensor: tensor, options: options, clips: plan.clips)
    }
}

extension kv_quantizer {
    /// What the measurements on real caches settled: see schema/FORMAT.md, "What the encoder chooses".
    init(_ quantizer: Quantizer, tensor: TensorKind, options: EncoderOptions, clips: Bool) {
        self.init()
        let published = options.levels == .published
        scheme = Int32(quantizer.scheme.rawValue)
        steps_max = Int32(options.scaleStepsPerOctave.trailingZeroBitCount)
        code_bits = Int32(quantizer.codeBits)
        switch quantizer {
        case .uniform(let bits):
            levels = 1 << Int32(bits)
            let searches = clips && !published && bits <= 4
            search = searches ? options.scaleSearch.kernelValue : Int32(KV_SEARCH_MINMAX)
            clip_candidates = bits <= 2 ? 5 : 4
            clip_ratio = bits <= 2 ? 0x1.ae89fap-1 : 0x1.d5818ep-1
            if search == Int32(KV_SEARCH_MINMAX) || bits > 2 { steps_max = min(4, steps_max + 2) }
            mean_shift = bits == 2 && tensor == .value ? 2 : 3
        case .sign:
            keeps_mean = options.levels == .magnitude ? 0 : 1
            mean_shift = published ? 6 : 2
        case .ternary:
            threshold = options.ternaryThreshold
            balance = options.balancesErrors && !published ? 4 : 0
        }
        levels_kind =
            switch options.levels {
            case .centroid: Int32(KV_LEVELS_CENTROID)
            case .published: Int32(KV_LEVELS_PUBLISHED)
            case .magnitude: Int32(KV_LEVELS_MAGNITUDE)
            }
    }
}

extension EncoderOptions.ScaleSearch {
    var kernelValue: Int32 {
        switch self {
        case .minMax: Int32(KV_SEARCH_MINMAX)
        case .clip: Int32(KV_SEARCH_CLIP)
        case .leastSquares: Int32(KV_SEARCH_LEAST_SQUARES)
        }
    }
}
