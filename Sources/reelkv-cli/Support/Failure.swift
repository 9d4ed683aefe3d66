/// Why a command cannot do what it was asked to, and what to do about it.
struct Failure: Error, CustomStringConvertible {
    var message: String

    init(_ message: String) { self.message = message }

    var description: String { message }
}
