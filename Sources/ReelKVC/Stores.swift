// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV

extension Store: HandleObject {
    static var noun: String { "a store" }
}

@c @implementation
public func reelkv_store_create(
    _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<reelkv_store_options>?,
    _ store: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let store = try output(store, "store")
        let path = try text(path, "path")
        store.pointee = Handles.make(try Store.create(at: path, options: try storeOptions(options)))
    }
}

private func storeOptions(_ pointer: UnsafePointer<reelkv_store_options>?) throws -> Store.Options {
    var options = Store.Options()
    guard let pointer else { return options }
    let given = try reelkv_store_options(pointer, "options")
    if given.page_tokens > 0 { options.pageTokens = Int(given.page_tokens) }
    if given.volume_bytes_max > 0 { options.volumeBytesMax = try number(given.volume_bytes_max, "options->volume_bytes_max") }
    return options
}

@c @implementation
public func reelkv_store_open(
    _ path: UnsafePointer<CChar>?, _ flags: UInt32, _ store: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let store = try output(store, "store")
        let path = try text(path, "path")
        try check(flags: flags, known: REELKV_OPEN_READ_ONLY | REELKV_OPEN_CREATE | REELKV_OPEN_RELAXED)
        guard flags & REELKV_OPEN_READ_ONLY == 0 || flags == REELKV_OPEN_READ_ONLY else {
            throw Failure.invalid("'flags' asks to write and to change nothing: choose one of the two")
        }
        let access: Store.Access = flags & REELKV_OPEN_READ_ONLY == 0 ? .readWrite : .readOnly
        // As it is open in this process already, where nothing is said.
        let durability: Store.Durability? = flags & REELKV_OPEN_RELAXED == 0 ? nil : .relaxed
        store.pointee = Handles.make(
            flags & REELKV_OPEN_CREATE == 0
                ? try Store(opening: path, access: access, durability: durability) : try openOrCreate(path, durability))
    }
}

/// Opens a store, or makes it where nothing is.
private func openOrCreate(_ path: String, _ durability: Store.Durability?) throws -> Store {
    do {
        return try Store(opening: path, durability: durability)
    } catch let missing as StoreError where missing.code == .notAStore {
        // Another process may make it meanwhile, or something else lie there.
        var taken: StoreError?
        do {
            _ = try Store.create(at: path)
        } catch let error as StoreError where error.code == .storeExists {
            taken = error
        }
        do {
            return try Store(opening: path, durability: durability)
        } catch let second as StoreError where second == missing {
            throw taken ?? second
        }
    }
}

@c @implementation
public func reelkv_store_close(_ store: OpaquePointer?) {
    Handles.release(store, as: Store.self)
}

@c @implementation
public func reelkv_store_sync(_ store: OpaquePointer?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.sync()
    }
}

@c @implementation
public func reelkv_store_page_tokens(_ store: OpaquePointer?, _ tokens: UnsafeMutablePointer<UInt32>?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try required(tokens, "tokens").pointee = UInt32(store.pageTokens)
    }
}
