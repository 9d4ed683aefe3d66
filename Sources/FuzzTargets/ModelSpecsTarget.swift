import ModelSpecFiles
import ReelKV

/// A spec is refused, or a store takes it, or says why not.
func fuzzModelSpecs(_ bytes: UnsafeRawBufferPointer) throws {
    var input = FuzzInput(bytes)
    let fingerprint = input.pick([nil, String(repeating: "ab", count: 32), "sha256:", "zz"])
    try allowing(ModelSpecFileError.self) {
        let file = try ModelSpecFile(json: input.remainder(), file: "fuzz.json", name: "fuzz", fingerprint: fingerprint)
        try allowing(StoreError.self) { try file.spec.validate() }
    }
}
