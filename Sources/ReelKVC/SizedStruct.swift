// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import CReelKV

/// A struct that may grow: its first member says how much of it the caller knows.
protocol SizedStruct {
    init()
    var struct_size: Int { get set }
}

extension reelkv_store_options: SizedStruct {}
extension reelkv_layer_geometry: SizedStruct {}
extension reelkv_model: SizedStruct {}
extension reelkv_tokens: SizedStruct {}
extension reelkv_acceptance: SizedStruct {}
extension reelkv_prefix_info: SizedStruct {}
extension reelkv_restore_options: SizedStruct {}
extension reelkv_writer_options: SizedStruct {}
extension reelkv_writer_info: SizedStruct {}
extension reelkv_finish_options: SizedStruct {}
extension reelkv_settings: SizedStruct {}

/// No version will have a struct larger than this.
private let structSizeMax = 4096

extension SizedStruct {
    private static var byteCount: Int { MemoryLayout<Self>.stride }

    /// Reads what a caller has filled. Members that it does not know are zero.
    init(_ pointer: UnsafePointer<Self>?, _ name: String) throws {
        let pointer = try required(pointer, name)
        try self.init(UnsafeRawPointer(pointer), size: try Self.size(at: pointer, name), name)
    }

    private init(_ memory: UnsafeRawPointer, size: Int, _ name: String) throws {
        self.init()
        let bytes = UnsafeRawBufferPointer(start: memory, count: size)
        withUnsafeMutableBytes(of: &self) { $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix($0.count))) }
        struct_size = size
        // A member of a later version would be ignored without a word.
        guard bytes.dropFirst(Self.byteCount).allSatisfy({ $0 == 0 }) else {
            throw Failure.invalid(
                "'\(name)' sets members that this version of the library does not know: a newer one is needed")
        }
    }

    /// Reads an array whose entries are as far apart as the first one says.
    static func array(_ pointer: UnsafePointer<Self>?, _ count: Int, _ name: String, atMost countMax: Int) throws -> [Self] {
        let first = try elements(pointer, count, name, atMost: countMax).baseAddress
        guard let first else { return [] }
        let size = try size(at: first, "\(name)[0]")
        return try (0..<count).map { try Self(UnsafeRawPointer(first) + $0 * size, size: size, "\(name)[\($0)]") }
    }

    /// Gives a caller as much of this as it knows. What it knows and this version does not is zero.
    func fill(_ pointer: UnsafeMutablePointer<Self>?, _ name: String) throws {
        let pointer = try required(pointer, name)
        let size = try Self.size(at: pointer, name)
        var filled = self
        filled.struct_size = size
        withUnsafeBytes(of: &filled) { bytes in
            let memory = UnsafeMutableRawBufferPointer(start: pointer, count: size)
            memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(size)))
            for index in memory.indices.dropFirst(bytes.count) { memory[index] = 0 }
        }
    }

    private static func size(at pointer: UnsafePointer<Self>, _ name: String) throws -> Int {
        let size = UnsafeRawPointer(pointer).loadUnaligned(as: Int.self)
        guard (MemoryLayout<Int>.size...structSizeMax).contains(size) else {
            throw Failure.invalid(
                "'\(name)' has a struct_size of \(UInt(bitPattern: size)): set it to the struct's sizeof, as REELKV_INIT does")
        }
        return size
    }
}
