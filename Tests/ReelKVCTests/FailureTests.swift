import CReelKV
import KVCodec
import ReelKV
import ReelKVC
import Testing

@Suite("Statuses of the C interface")
struct FailureTests {
    @Test(
        "Every error of a store has a status of its own, called as the error is",
        arguments: [
            .notAStore, .storeExists, .newerFormat, .damaged, .notFound, .alreadyExists, .conflict, .invalidArgument,
            .modelMismatch, .readOnly, .noSpace, .quotaExceeded, .pageUnavailable, .inUse, .forked,
        ] as [StoreError.Code])
    func storeErrors(code: StoreError.Code) {
        let failure = Failure(StoreError(code, "a sentence"))
        #expect(String(cString: reelkv_status_name(reelkv_status(failure.status))) == code.rawValue)
        #expect(failure.message == "a sentence")
    }

    @Test("Errors that have no status of their name")
    func otherErrors() throws {
        #expect(Failure(StoreError(.inputOutput, "x")).status == REELKV_IO_ERROR)
        #expect(Failure(StoreError(StoreError.Code(rawValue: "of a later version"), "x")).status == REELKV_INTERNAL)
        #expect(Failure(CodecError(.unknownProfile, "x")).status == REELKV_INVALID_ARGUMENT)
        #expect(Failure(CodecError(.notAPage, "x")).status == REELKV_DAMAGED)
        #expect(Failure(CodecError(.absent, "x")).status == REELKV_PAGE_UNAVAILABLE)
        #expect(Failure(CancellationError()).status == REELKV_INTERNAL)
        #expect(Failure(CancellationError()).message.contains("report"))
    }
}
