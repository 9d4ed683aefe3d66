import KVCodec
import ReelKV
import Reports

/// A video or session as `reelkv_sequences_json` tells of it.
struct SequenceDescription: Encodable {
    /// `[first_token, tokens, seconds]`
    struct Frame: Encodable {
        var frame: VideoFrame

        func encode(to encoder: any Encoder) throws {
            var container = encoder.unkeyedContainer()
            try container.encode(frame.firstToken)
            try container.encode(frame.tokenCount)
            try container.encode(frame.seconds)
        }
    }

    var sequence: String
    var tenant: String
    var model: String
    var profile: String
    var tokens: Int
    var frames: [Frame]
    /// `[first_token, appended_unix]`
    var turns: [[Int64]]
    var provenance: [String: String]
    var createdUnix: Int64
    var updatedUnix: Int64
    var building: Bool
    var pinned: Bool
    var locked: Bool

    enum CodingKeys: String, CodingKey {
        case sequence, tenant, model, profile, tokens, frames, turns, provenance, building, pinned, locked
        case createdUnix = "created_unix"
        case updatedUnix = "updated_unix"
    }

    init(_ info: SequenceInfo) {
        sequence = info.name.description
        tenant = info.name.tenant
        model = info.model
        profile = Profile.name(of: info.profileID)
        tokens = info.tokenCount
        locked = info.isLocked
        frames = info.frames.map(Frame.init)
        turns = info.turns.map { [Int64($0.firstToken), $0.appendedSeconds] }
        provenance = info.provenance.entries
        createdUnix = info.createdSeconds
        updatedUnix = info.updatedSeconds
        building = info.isBuilding
        pinned = info.isPinned
    }
}
