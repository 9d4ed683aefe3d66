import CReelKV
import KVCodec
import ModelSpecFiles
import ReelKV

/// Why a call failed, in the interface's terms.
package struct Failure: Error {
    /// One of `REELKV_...`.
    package let status: Int
    /// A sentence that says what to do.
    package let message: String

    init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }

    static func invalid(_ message: String) -> Failure { Failure(REELKV_INVALID_ARGUMENT, message) }

    package init(_ error: any Error) {
        switch error {
        case let failure as Failure: self = failure
        case let error as StoreError: self.init(Self.status(of: error.code), error.message)
        case let error as CodecError: self.init(Self.status(of: error.code), error.message)
        case let error as ModelSpecFileError: self.init(REELKV_INVALID_ARGUMENT, error.description)
        default: self.init(REELKV_INTERNAL, "\(error): this is a mistake in the library, please report it")
        }
    }

    static func status(of code: StoreError.Code) -> Int {
        switch code {
        case .notAStore: REELKV_NOT_A_STORE
        case .storeExists: REELKV_STORE_EXISTS
        case .newerFormat: REELKV_NEWER_FORMAT
        case .damaged: REELKV_DAMAGED
        case .notFound: REELKV_NOT_FOUND
        case .alreadyExists: REELKV_ALREADY_EXISTS
        case .conflict: REELKV_CONFLICT
        case .invalidArgument: REELKV_INVALID_ARGUMENT
        case .modelMismatch: REELKV_MODEL_MISMATCH
        case .readOnly: REELKV_READ_ONLY
        case .noSpace: REELKV_NO_SPACE
        case .quotaExceeded: REELKV_QUOTA_EXCEEDED
        case .pageUnavailable: REELKV_PAGE_UNAVAILABLE
        case .inUse: REELKV_IN_USE
        case .inputOutput: REELKV_IO_ERROR
        case .forked: REELKV_FORKED
        case .keyRequired: REELKV_KEY_REQUIRED
        case .wrongKey: REELKV_WRONG_KEY
        default: REELKV_INTERNAL
        }
    }

    static func status(of code: CodecError.Code) -> Int {
        switch code {
        case .invalidArgument, .unknownProfile: REELKV_INVALID_ARGUMENT
        case .newerFormat: REELKV_NEWER_FORMAT
        case .damaged, .notAPage: REELKV_DAMAGED
        case .absent: REELKV_PAGE_UNAVAILABLE
        default: REELKV_INTERNAL
        }
    }
}
