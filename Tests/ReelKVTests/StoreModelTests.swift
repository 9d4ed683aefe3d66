import KVCodec
import ReelKV
import StoreModel
import Testing

@Suite("Random operations against a plain model of the store")
struct StoreModelTests {
    private static let steps = 60

    /// - Returns: what is wrong after these steps, taken by two sessions of this process; nil when nothing is.
    private static func failure(of steps: [ModelStep], isWrong: Bool = false) -> String? {
        let path = TemporaryFolder()
        do {
            let run = try ModelRun(at: path.path + "/store", isWrong: isWrong) {
                try (0..<2).map { _ in try LocalActor(path: path.path + "/store") }
            }
            for step in steps { try run.take(step) }
            try run.finish()
            return nil
        } catch { return "\(error)" }
    }

    @Test("The store holds what the model says", arguments: [UInt64(1), UInt64.random(in: 2..<1_000_000_000)])
    func agreement(seed: UInt64) {
        let steps = ModelStep.random(Self.steps, seed: seed)
        guard let failure = Self.failure(of: steps) else { return }
        let short = ModelScript.shrunk(steps) { Self.failure(of: $0) != nil }
        Issue.record(
            "seed \(seed): \(failure)\nshortest script, which `tools/crash model --script` takes:\n\(ModelScript.text(short))")
    }

    @Test("A failing run shrinks to a few lines that can be replayed")
    func shrinking() throws {
        let runs = (UInt64(1)...40).lazy.map { ModelStep.random(30, seed: $0) }
        let steps = try #require(runs.first { Self.failure(of: $0, isWrong: true) != nil })
        let short = ModelScript.shrunk(steps) { Self.failure(of: $0, isWrong: true) != nil }
        #expect(short.count <= 3, "\(ModelScript.text(short))")
        let parsed = try #require(ModelScript.parse(ModelScript.text(short)))
        #expect(parsed == short)
        #expect(Self.failure(of: parsed, isWrong: true) != nil)
        // it is the model that is wrong
        #expect(Self.failure(of: parsed) == nil)
        #expect(ModelScript.parse("append 1 2 0\nexplode 1 2 0\n") == nil)
    }

    @Test("Orders and replies are the same after they were sent as text")
    func lines() {
        let name = SequenceName.session("n1", tenant: "other")
        let orders: [ModelOrder] = [
            .write(name, profile: "int4", ids: [1, 2, 0], isFinished: true),
            .write(.video("v"), profile: "vidkv-1.5-1.58", ids: [], isFinished: false), .finish, .fork(name, to: "f0", count: 7),
            .truncate(name, count: 0), .remove(name), .pin(name, true), .check(name, ids: [2]), .list, .evict(bytes: 5),
            .quota(bytes: 0), .demote, .compact, .verify, .rekey(2), .unlock(1),
        ]
        for order in orders { #expect(ModelOrder(order.line[...]) == order) }
        let replies: [ModelOrder.Reply] = [
            .done, .listed([:]), .listed([name: "3,true", .video("v"): "0,false"]),
            .refused(code: "not-found", message: "no session 'n1'"), .wrong("other keys in layer 1"),
        ]
        for reply in replies { #expect(ModelOrder.Reply(reply.line[...]) == reply) }
        #expect(ModelOrder("write") == nil && ModelOrder("pin other:session/n1 maybe") == nil && ModelOrder("") == nil)
    }
}
