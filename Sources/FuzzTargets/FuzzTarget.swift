/// What is fuzzed: code that takes bytes, files or arguments from outside. Whatever they are, it must end in a result or in one of
/// the errors that it says it throws, within the memory that is its own, and what it promises of results must hold.
///
/// The same bytes always do the same, in a fuzzer, in a test of a corpus, and when a finding is looked into.
package enum FuzzTarget: String, CaseIterable, Sendable {
    /// A page image, as it is and with its checksums made right.
    case pageImage = "page-image"
    /// The records of the index, of volumes and of lease files.
    case records
    case safetensors
    /// Shapes and strides of tensors, and pages encoded from them.
    case tensorViews = "tensor-views"
    /// Model specs and Hugging Face configurations.
    case modelSpecs = "model-specs"
    /// Calls of `reelkv.h` with any arguments that a C program can pass without lying about its own memory.
    case cInterface = "c-interface"
    /// Command lines of `reelkv`, and caches that it imports.
    case commandLine = "command-line"

    /// - Throws: `FuzzFinding` when something that must hold does not.
    package func run(_ bytes: UnsafeRawBufferPointer) throws {
        switch self {
        case .pageImage: try fuzzPageImage(bytes)
        case .records: try fuzzRecords(bytes)
        case .safetensors: try fuzzSafetensors(bytes)
        case .tensorViews: try fuzzTensorViews(bytes)
        case .modelSpecs: try fuzzModelSpecs(bytes)
        case .cInterface: try fuzzCInterface(bytes)
        case .commandLine: try fuzzCommandLine(bytes)
        }
    }
}

/// Something that must hold, and did not.
package struct FuzzFinding: Error, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}

func require(_ condition: Bool, _ what: @autoclosure () -> String) throws {
    if !condition { throw FuzzFinding(what()) }
}

/// Runs `body`; an error of the type that it may throw is as good as a result.
func allowing<Allowed: Error>(_ allowed: Allowed.Type, _ body: () throws -> Void) throws {
    do { try body() } catch is Allowed {}
}
