// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Runs what a function of the interface does. What it throws becomes the function's status and the thread's last error.
func attempt(_ body: () throws -> Void) -> reelkv_status {
    do {
        try body()
        return reelkv_status(REELKV_OK)
    } catch {
        let failure = Failure(error)
        LastError.message = failure.message
        return reelkv_status(failure.status)
    }
}

/// The calling thread's last error.
enum LastError {
    /// A thread's message goes with the thread.
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { free($0) }
        return key
    }()
    private static let none: StaticString = ""

    static var message: String {
        get { String(cString: pointer) }
        set {
            free(pthread_getspecific(key))
            pthread_setspecific(key, strdup(newValue))
        }
    }

    static var pointer: UnsafePointer<CChar> {
        pthread_getspecific(key).map { UnsafePointer($0.assumingMemoryBound(to: CChar.self)) } ?? none.cString
    }
}

extension StaticString {
    /// The text, ended by NUL, for as long as the program runs.
    var cString: UnsafePointer<CChar> { UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self) }
}

/// By status.
private let statusNames: [StaticString] = [
    "ok", "invalid-argument", "not-a-store", "store-exists", "newer-format", "damaged", "not-found", "already-exists", "conflict",
    "model-mismatch", "read-only", "no-space", "quota-exceeded", "page-unavailable", "in-use", "io-error", "forked", "cancelled",
    "internal",
]
private let unknownStatusName: StaticString = "unknown"

@c @implementation
public func reelkv_status_name(_ status: reelkv_status) -> UnsafePointer<CChar>? {
    let index = Int(status)
    return (statusNames.indices.contains(index) ? statusNames[index] : unknownStatusName).cString
}

@c @implementation
public func reelkv_last_error() -> UnsafePointer<CChar>? { LastError.pointer }

@c @implementation
public func reelkv_abi_version() -> UInt32 { REELKV_ABI_VERSION }

@c @implementation
public func reelkv_version() -> UnsafePointer<CChar>? { libraryVersion.cString }

@c @implementation
public func reelkv_free(_ memory: UnsafeMutableRawPointer?) { free(memory) }
