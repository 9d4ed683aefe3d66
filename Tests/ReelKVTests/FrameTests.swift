import KVCodec
import ReelKV
import Testing

@Suite("Frames of a video")
struct FrameTests {
    @Test("Frame and time ranges name the tokens of whole frames")
    func ranges() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .video(.of(1), frames: 5, tokensPerFrame: 30))
        let frames = (0..<5).map { VideoFrame(firstToken: 3 + 30 * $0, tokenCount: 30, seconds: 0.5 * Double($0)) }
        let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
        try cache.append(0..<cache.tokens.count, to: writer)
        try writer.finish(frames: frames, provenance: ["source": "clip.avi"])
        let info = try store.info(of: .video("v"))
        #expect(info.frames == frames)
        #expect(info.provenance.entries == ["source": "clip.avi"])
        #expect(try info.tokens(ofFrames: 0..<5) == 3..<153)
        #expect(try info.tokens(ofFrames: 2..<3) == 63..<93)
        #expect(try info.tokens(ofFrames: 2..<2).isEmpty)
        #expect(info.frames(inSeconds: 0.5..<1.5) == 1..<3)
        #expect(info.frames(inSeconds: 9..<10).isEmpty)
        #expect(throws: StoreError.self) { try info.tokens(ofFrames: 3..<6) }
        let part = try info.tokens(ofFrames: info.frames(inSeconds: 1..<2))
        let bytes = try restored(store, try store.prefix(of: .video("v")), tokens: part)
        #expect(bytes[1] == cache.bytes(layer: 1, 63..<123))
    }

    @Test("Frames outside the video are refused")
    func misfits() throws {
        let folder = TemporaryFolder()
        let store = try makeStore(in: folder)
        let cache = SyntheticCache(.small(), .text(10, seed: 1))
        for frame in [
            VideoFrame(firstToken: 5, tokenCount: 6, seconds: 0), VideoFrame(firstToken: -1, tokenCount: 1, seconds: 0),
        ] {
            let writer = try store.writer(for: .video("v"), model: "small", profile: .exact)
            try cache.append(0..<10, to: writer)
            #expect(throws: StoreError.self) { try writer.finish(frames: [frame]) }
        }
    }
}
