package import KVCodec

extension Profile {
    /// The name of a profile that the store knows by number.
    package static func name(of id: UInt16) -> String { numbered(id)?.name ?? "profile-\(id)" }
}
