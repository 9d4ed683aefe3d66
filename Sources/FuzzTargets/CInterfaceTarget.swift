import CReelKV

/// Calls functions of `reelkv.h` in any order with any arguments, on a copy of a small store. Handles may be stale, NULL or made up, sizes
/// and flags anything; pointers are NULL or point to as much memory as the arguments say.
func fuzzCInterface(_ bytes: UnsafeRawBufferPointer) throws {
    try TemplateStore.shared.withCopy { folder in
        let session = CSession(FuzzInput(bytes), folder: folder)
        defer { session.end() }
        for _ in 0..<CSession.callsMax {
            guard !session.input.isEmpty else { break }
            try session.call()
        }
    }
}

/// The program that calls: its handles and its memory.
final class CSession {
    static let callsMax = 32
    private static let slots = 3

    var input: FuzzInput
    let folder: String
    var stores = [OpaquePointer?](repeating: nil, count: slots)
    var prefixes = [OpaquePointer?](repeating: nil, count: slots)
    var leases = [OpaquePointer?](repeating: nil, count: slots)
    var jobs = [OpaquePointer?](repeating: nil, count: slots)
    var writers = [OpaquePointer?](repeating: nil, count: slots)
    /// What tensors lie in. Jobs write to it until they end.
    let memory = CMemory()

    init(_ input: FuzzInput, folder: String) {
        self.input = input
        self.folder = folder
        reelkv_store_open(folder + "/store", 0, &stores[0])
    }

    /// Lets go of everything. A job first: it writes to the memory.
    func end() {
        for job in jobs where job != nil { reelkv_restore_end(job) }
        for writer in writers { reelkv_writer_close(writer) }
        for lease in leases { reelkv_lease_release(lease) }
        for prefix in prefixes { reelkv_prefix_free(prefix) }
        for store in stores { reelkv_store_close(store) }
    }

    func call() throws {
        switch input.number(in: 0...63) {
        case 0...7: try callStores()
        case 8...13: try callModels()
        case 14...27: try callMatching()
        case 28...39: try callRestoring()
        case 40...53: try callWriting()
        default: try callAdministration()
        }
    }

    // MARK: - What calls have in common

    /// A status is one that the header names, and a failure has a sentence.
    func check(_ status: reelkv_status, _ what: StaticString) throws {
        try require((0...20).contains(status) && Int(status) != REELKV_INTERNAL, "\(what): status \(status)")
        guard status != 0 else { return }
        try require(reelkv_last_error().map { $0.pointee != 0 } ?? false, "\(what) failed without a word")
    }

    func place() -> Int { input.number(in: 0...Self.slots - 1) }

    /// A handle of the kind: mostly one that was made.
    func handle(_ kind: KeyPath<CSession, [OpaquePointer?]>) -> OpaquePointer? {
        switch input.next(UInt8.self) {
        case 0: nil
        case 1: OpaquePointer(bitPattern: UInt(truncatingIfNeeded: input.next(UInt64.self)))
        case 2: stores[place()]
        case 3: prefixes[place()]
        default: self[keyPath: kind][place()]
        }
    }

    var store: OpaquePointer? { handle(\.stores) }

    /// A name: one that is there, or anything; now and then NULL.
    func withName(_ usual: [String], _ body: (UnsafePointer<CChar>?) throws -> Void) rethrows {
        switch input.next(UInt8.self) {
        case 0: try body(nil)
        case 1..<48: try input.text(upTo: 250).withCString(body)
        default: try input.pick(usual).withCString(body)
        }
    }

    func withSequence(_ body: (UnsafePointer<CChar>?) throws -> Void) rethrows {
        try withName(["video/v", "session/s", "session/t", "video/w", "v", "session/", "other/v"], body)
    }

    func withTenant(_ body: (UnsafePointer<CChar>?) throws -> Void) rethrows {
        if input.flag() { return try body(nil) }
        try withName(["default", "acme", "sealed", ""], body)
    }

    func withModel(_ body: (UnsafePointer<CChar>?) throws -> Void) rethrows {
        try withName([TemplateStore.model, TemplateStore.model, "wide", "added", "none"], body)
    }

    /// Tokens as the store has them, or changed.
    func withTokens(_ body: (inout reelkv_tokens) throws -> Void) rethrows {
        let first = input.pick([0, TemplateStore.video, TemplateStore.video + TemplateStore.turn, input.number(in: 0...99)])
        let count = input.number(in: 0...120)
        var ids = TemplateStore.ids(first..<first + count)
        if input.flag(), !ids.isEmpty { ids[input.number(in: 0...ids.count - 1)] = input.next(Int32.self) }
        var media = (0..<input.number(in: 0...2)).map { _ in span(count) }
        let streams = input.pick([0, 0, 1, 3, 2, Int(input.next(UInt8.self))])
        let positions = (0..<streams * count).map { _ in input.next(Int32.self) }
        try ids.withUnsafeBufferPointer { ids in
            try media.withUnsafeMutableBufferPointer { media in
                try positions.withUnsafeBufferPointer { positions in
                    var tokens = reelkv_tokens()
                    tokens.struct_size = size(of: reelkv_tokens.self)
                    tokens.ids = input.next(UInt8.self) == 1 ? nil : ids.baseAddress
                    tokens.count = tokens.ids == nil ? 0 : count
                    tokens.media = media.isEmpty ? nil : UnsafePointer(media.baseAddress)
                    tokens.media_count = media.count
                    tokens.positions = streams == 0 ? nil : positions.baseAddress
                    tokens.position_streams = UInt32(streams)
                    try body(&tokens)
                }
            }
        }
    }

    private func span(_ count: Int) -> reelkv_media_span {
        var span = reelkv_media_span()
        span.digest.0 = input.next()
        span.first_token = UInt64(truncatingIfNeeded: input.size(upTo: count))
        span.count = UInt64(truncatingIfNeeded: input.size(upTo: count))
        span.media_offset = UInt64(truncatingIfNeeded: input.size(upTo: 100))
        return span
    }

    /// The size of a struct as its first member says it: the right one, or less.
    func size<Struct>(of type: Struct.Type) -> Int {
        switch input.next(UInt8.self) {
        case 0: 0
        case 1: input.number(in: 0...MemoryLayout<Struct>.size)
        default: MemoryLayout<Struct>.size
        }
    }

    func flags() -> UInt32 { input.next(UInt8.self) < 224 ? 0 : input.next(UInt32.self) }

    func takeText(_ text: UnsafeMutablePointer<CChar>?, _ status: reelkv_status, _ what: StaticString) throws {
        try check(status, what)
        try require(status != 0 || text != nil, "\(what) gives nothing")
        reelkv_free(text)
    }
}
