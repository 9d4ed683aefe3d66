import Testing

/// Runs the scripts in `Scripts`, each in a folder of its own.
struct ScriptTests {
    @Test(arguments: Script.all) func script(_ script: Script) throws {
        try Tool.withFolder { tool in
            for step in script.steps {
                let outcome = try tool.run(step.command)
                // what is said of the folder is said the same wherever it is
                let printed = (outcome.output + outcome.errors)
                    .replacing(Tool.fixtures.path, with: "FIXTURES").replacing(tool.folder.path, with: "FOLDER")
                let place: Comment = "\(script.name).txt:\(step.line): \(step.command)\n\(printed)"
                #expect(outcome.status == step.status, place)
                #expect(Script.matches(printed, step.expected), place)
            }
        }
    }

    @Test func scriptsAreFound() {
        #expect(Script.all.count >= 6)
        #expect(Script.all.allSatisfy { !$0.steps.isEmpty })
    }

    @Test func patternsMatchWhatTheySay() {
        #expect(Script.matches("a  b 12 c\n\nlast\n", ["a b * c", "last"]))
        #expect(Script.matches("one\ntwo\nthree\n", ["one", "...", "three"]))
        #expect(!Script.matches("a b 12 d\n", ["a b * c"]))
        #expect(!Script.matches("one\n", ["one", "two"]))
        #expect(!Script.matches("one\ntwo\n", ["one"]))
    }
}
