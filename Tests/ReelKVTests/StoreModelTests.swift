import ReelKV
import Testing

@Suite("Random operations against a plain model of the store")
struct StoreModelTests {
    private static let steps = 60

    @Test("The store holds what the model says", arguments: [UInt64(1), UInt64.random(in: 2..<1_000_000_000)])
    func agreement(seed: UInt64) {
        let steps = ModelStep.random(Self.steps, seed: seed)
        guard let failure = ModelScript.failure(of: steps) else { return }
        let short = ModelScript.shrunk(steps) { ModelScript.failure(of: $0) != nil }
        Issue.record("seed \(seed): \(failure)\nshortest script, which `failure(of:)` takes:\n\(ModelScript.text(short))")
    }

    @Test("A failing run shrinks to a few lines that can be replayed")
    func shrinking() throws {
        let runs = (UInt64(1)...40).lazy.map { ModelStep.random(30, seed: $0) }
        let steps = try #require(runs.first { ModelScript.failure(of: $0, isWrong: true) != nil })
        let short = ModelScript.shrunk(steps) { ModelScript.failure(of: $0, isWrong: true) != nil }
        #expect(short.count <= 3, "\(ModelScript.text(short))")
        let parsed = try #require(ModelScript.parse(ModelScript.text(short)))
        #expect(parsed == short)
        #expect(ModelScript.failure(of: parsed, isWrong: true) != nil)
        // it is the model that is wrong
        #expect(ModelScript.failure(of: parsed) == nil)
        #expect(ModelScript.parse("append 1 2\nexplode 1 2\n") == nil)
    }
}
