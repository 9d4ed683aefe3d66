import ArgumentParser
import KVCodec

/// 64 hexadecimal digits.
struct DigestArgument: ExpressibleByArgument {
    var digest: Digest

    init?(argument: String) {
        guard let digest = Digest(hex: argument) else { return nil }
        self.digest = digest
    }
}
