import KVCodec
import ReelKV
import Rendering
import Reports

/// A video or session as listings show it.
struct SequenceReport: Encodable {
    var name: String
    var tenant: String
    var model: String
    var profile: String
    var tokens: Int
    var frames: Int
    var turns: Int
    var building: Bool
    var pinned: Bool
    var created: String
    var updated: String
    /// Whether what is encrypted of it could not be read: how many frames and turns it has, and where it came from.
    var locked: Bool?

    init(_ info: SequenceInfo) {
        name = info.name.description
        tenant = info.name.tenant
        model = info.model
        profile = Profile.name(of: info.profileID)
        tokens = info.tokenCount
        frames = info.frames.count
        turns = info.turns.count
        building = info.isBuilding
        pinned = info.isPinned
        created = timestamp(info.createdSeconds)
        updated = timestamp(info.updatedSeconds)
        locked = info.isLocked ? true : nil
    }

    private var state: String {
        let words = [building ? "building" : pinned ? "pinned" : nil, locked == true ? "locked" : nil]
        return words.compactMap { $0 }.joined(separator: ", ")
    }

    static func table(_ sequences: [SequenceReport]) -> String {
        var table = TextTable(
            .left("NAME"), .left("TENANT"), .left("MODEL"), .left("PROFILE"), .right("TOKENS"), .right("FRAMES"),
            .right("TURNS"), .left("UPDATED"), .left("STATE"))
        for sequence in sequences {
            table.append(
                sequence.name, sequence.tenant, sequence.model, sequence.profile, Format.count(sequence.tokens),
                sequence.frames > 0 ? Format.count(sequence.frames) : "-", sequence.turns > 0 ? "\(sequence.turns)" : "-",
                sequence.updated, sequence.state)
        }
        return table.text()
    }
}
