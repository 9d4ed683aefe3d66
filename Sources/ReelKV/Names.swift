/// The rule for the names of models, tenants, videos and sessions.
enum Names {
    static let byteCountMax = 200

    /// Whether anything can have this name. A key of the index must not be empty or too long, not even to look it up.
    static func isPossible(_ name: String) -> Bool { !name.isEmpty && name.utf8.count <= byteCountMax }

    /// - Throws: `StoreError.invalidArgument` for an empty name, one over 200 bytes, or one with control characters.
    static func check(_ name: String, what: String) throws {
        guard isPossible(name) else {
            throw StoreError(.invalidArgument, "the name of a \(what) has 1...\(byteCountMax) bytes, not \(name.utf8.count)")
        }
        guard name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
            throw StoreError(.invalidArgument, "the name of a \(what) must not hold control characters")
        }
    }
}
