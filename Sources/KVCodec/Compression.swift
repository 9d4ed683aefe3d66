import CKVKernels
import CZstd
import Locking

/// A zstd compressor tuned for codes and metadata: what they have is a skewed distribution of bytes, hardly ever repeats, so
/// short matches only get in the way of the entropy coder (3 % smaller than level 3 on real caches, and faster). So matches are looked for
/// at one byte of seventeen at first, which finds all that are long; bytes that do not match are entropy-coded even so, unlike zstd does it
/// by itself (experimental parameter 5, the mode of literals).
final class Compressor {
    private let context: OpaquePointer
    /// Room for a compressed stream.
    private var room = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    init() throws(CodecError) {
        guard let context = ZSTD_createCCtx() else { throw CodecError(.invalidArgument, "out of memory for a compressor") }
        self.context = context
        let parameters: [(ZSTD_cParameter, Int32)] = [
            (ZSTD_c_compressionLevel, 1), (ZSTD_c_strategy, Int32(ZSTD_fast.rawValue)), (ZSTD_c_minMatch, 7),
            (ZSTD_c_windowLog, 17), (ZSTD_c_hashLog, 12), (ZSTD_c_targetLength, 16), (ZSTD_c_contentSizeFlag, 0),
            (ZSTD_c_checksumFlag, 0), (ZSTD_c_dictIDFlag, 0),
        ]
        for (parameter, value) in parameters where ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter, value)) != 0 {
            throw CodecError(.invalidArgument, "this zstd library refuses parameter \(parameter.rawValue)")
        }
        // Another version may know it by another number; frames are larger then.
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_experimentalParam5, 1)
    }

    deinit {
        ZSTD_freeCCtx(context)
        room.deallocate()
    }

    /// Appends `bytes` to `output`, compressed if that makes them smaller by enough. A byte saved is a byte less to read, but all bytes
    /// must then be decompressed: with less saved, reading a stream as it is takes less time even from a slow disk.
    /// - Parameter savedShare: what must be saved: one in so many bytes.
    func append(_ bytes: UnsafeRawBufferPointer, to output: inout [UInt8], savedShare: Int = 5) -> StreamEncoding {
        let sizeMax = min(bytes.count - bytes.count / savedShare, bytes.count - 1)
        guard isPromising(bytes, sizeMax: sizeMax) else {
            output.append(contentsOf: bytes)
            return .raw
        }
        let bound = ZSTD_compressBound(bytes.count)
        if room.count < bound {
            room.deallocate()
            room = .allocate(byteCount: bound, alignment: 64)
        }
        let size = ZSTD_compress2(context, room.baseAddress, room.count, bytes.baseAddress, bytes.count)
        let isSmaller = ZSTD_isError(size) == 0 && size <= sizeMax
        output.append(contentsOf: isSmaller ? UnsafeRawBufferPointer(rebasing: room[..<size]) : bytes)
        return isSmaller ? .zstd : .raw
    }

    /// No frame is smaller.
    private static let frameBytesMin = 10

    /// Whether bytes may come to `sizeMax`: a look at their distribution takes a tenth of the time of trying. Repeats, which it does not
    /// see, have little part in what is saved.
    private func isPromising(_ bytes: UnsafeRawBufferPointer, sizeMax: Int) -> Bool {
        guard sizeMax >= Self.frameBytesMin else { return false }
        return kv_entropy_bytes(bytes.baseAddress, bytes.count) <= sizeMax + sizeMax / 32
    }

    /// One frame of chunks that differ in their distribution of bytes, each compressed by its own.
    func frame(of chunks: [[UInt8]]) -> [UInt8] {
        let bound = chunks.reduce(64) { $0 + ZSTD_compressBound($1.count) }
        return [UInt8](unsafeUninitializedCapacity: bound) { output, count in
            var target = ZSTD_outBuffer(dst: output.baseAddress, size: bound, pos: 0)
            for (index, chunk) in chunks.enumerated() {
                let end = index == chunks.count - 1 ? ZSTD_e_end : ZSTD_e_flush
                chunk.withUnsafeBytes { bytes in
                    var source = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
                    let left = ZSTD_compressStream2(context, &target, &source, end)
                    precondition(left == 0, "there is room for every chunk")
                }
            }
            count = target.pos
        }
    }
}

/// A zstd decompressor that believes nothing it reads. Making one takes longer than the small streams it is mostly for: keep it.
package final class Decompressor: @unchecked Sendable {
    // Sendable, but not for two threads at once.
    private let context: OpaquePointer

    package init() throws(CodecError) {
        guard let context = ZSTD_createDCtx() else { throw CodecError(.invalidArgument, "out of memory for a decompressor") }
        self.context = context
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Fills `output` exactly, or throws.
    package func decompress(
        _ bytes: UnsafeRawBufferPointer, encoding: StreamEncoding, into output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        switch encoding {
        case .raw:
            guard bytes.count == output.count else {
                throw .damaged("a raw stream has \(bytes.count) bytes where \(output.count) belong")
            }
            output.copyMemory(from: bytes)
        case .zstd:
            let size = ZSTD_decompressDCtx(context, output.baseAddress, output.count, bytes.baseAddress, bytes.count)
            guard ZSTD_isError(size) == 0, size == output.count else {
                throw .damaged("a compressed stream does not give the \(output.count) bytes that belong there")
            }
        case .shared:
            throw .damaged("shared bytes outside of a section")
        }
    }
}

/// Decompressors for those who have none of their own, kept for the next.
enum DecompressorPool {
    /// More than decode at once are made as they are needed, and dropped.
    private static let kept = 16
    private static let idle = Mutex<[Decompressor]>([])

    static func decompress(
        _ bytes: UnsafeRawBufferPointer, encoding: StreamEncoding, into output: UnsafeMutableRawBufferPointer
    ) throws(CodecError) {
        let decompressor = try take()
        defer { idle.withLock { if $0.count < kept { $0.append(decompressor) } } }
        try decompressor.decompress(bytes, encoding: encoding, into: output)
    }

    private static func take() throws(CodecError) -> Decompressor {
        if let decompressor = idle.withLock({ $0.popLast() }) { return decompressor }
        return try Decompressor()
    }
}
