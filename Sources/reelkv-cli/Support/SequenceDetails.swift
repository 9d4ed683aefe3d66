import KVCodec
import ReelKV
import Rendering
import Reports

/// Everything `show` says of a video or session without decoding it.
struct SequenceDetails: Encodable {
    struct Frame: Encodable {
        var firstToken: Int
        var tokens: Int
        var seconds: Double

        enum CodingKeys: String, CodingKey {
            case tokens, seconds
            case firstToken = "first_token"
        }
    }

    struct Turn: Encodable {
        var firstToken: Int
        var tokens: Int
        var appended: String

        enum CodingKeys: String, CodingKey {
            case tokens, appended
            case firstToken = "first_token"
        }
    }

    var name: String
    var tenant: String
    var model: String
    var profile: String
    /// Its pages are not evicted.
    var pinned: Bool
    var tokens: Int
    /// Tokens that can be read: fewer where a page is damaged.
    var readableTokens: Int
    var storedBytes: Int
    var exactBytes: Int
    var bitsPerElement: Double
    var keyError: Float
    var valueError: Float
    var exact: Bool
    var engineStateBytes: Int?
    var created: String
    var updated: String
    var frames: [Frame]
    var turns: [Turn]
    var provenance: [String: String]

    enum CodingKeys: String, CodingKey {
        case name, tenant, model, profile, pinned, tokens, exact, created, updated, frames, turns, provenance
        case readableTokens = "readable_tokens"
        case storedBytes = "stored_bytes"
        case exactBytes = "exact_bytes"
        case bitsPerElement = "bits_per_element"
        case keyError = "key_error"
        case valueError = "value_error"
        case engineStateBytes = "engine_state_bytes"
    }

    init(_ info: SequenceInfo, _ prefix: StoredPrefix, _ store: Store) {
        name = info.name.description
        tenant = info.name.tenant
        model = info.model
        profile = Profile.name(of: info.profileID)
        pinned = info.isPinned
        tokens = info.tokenCount
        readableTokens = prefix.tokenCount
        storedBytes = prefix.storedBytes
        exactBytes = prefix.tokenCount * prefix.model.exactBytesPerToken
        bitsPerElement = 8 * Double(prefix.storedBytes) / Double(max(1, prefix.tokenCount * prefix.model.elementsPerToken))
        keyError = prefix.keyError
        valueError = prefix.valueError
        exact = prefix.isExact
        engineStateBytes = prefix.engineState?.count
        created = timestamp(info.createdSeconds)
        updated = timestamp(info.updatedSeconds)
        frames = info.frames.map { Frame(firstToken: $0.firstToken, tokens: $0.tokenCount, seconds: $0.seconds) }
        turns = info.turns.enumerated().map { index, turn in
            let end = index + 1 < info.turns.count ? info.turns[index + 1].firstToken : info.tokenCount
            return Turn(firstToken: turn.firstToken, tokens: end - turn.firstToken, appended: timestamp(turn.appendedSeconds))
        }
        provenance = info.provenance.entries
    }

    func text() -> String {
        var lines: [(String, String)] = [
            ("model", model), ("profile", profile), ("tokens", Format.count(tokens)),
            ("pages", "\(Format.bytes(storedBytes)) for \(Format.bytes(exactBytes)) of tensors"),
            ("bits per element", Format.decimal(bitsPerElement, places: 2)),
            ("NMSE", exact ? "0: bit-identical" : "keys \(errorText(keyError)), values \(errorText(valueError))"),
        ]
        if readableTokens < tokens {
            lines.append(("damaged", "only the first \(Format.count(readableTokens)) tokens can be read"))
        }
        if pinned { lines.append(("state", "pinned: not evicted")) }
        if let engineStateBytes { lines.append(("engine state", Format.bytes(engineStateBytes))) }
        if let first = frames.first, let last = frames.last {
            let seconds = "\(Format.decimal(first.seconds, places: 2)) s to \(Format.decimal(last.seconds, places: 2)) s"
            lines.append(("frames", "\(Format.count(frames.count)), shown from \(seconds)"))
        }
        for (index, turn) in turns.enumerated() {
            lines.append(
                ("turn \(index + 1)", "tokens \(turn.firstToken)..<\(turn.firstToken + turn.tokens), appended \(turn.appended)"))
        }
        lines.append(("created", created))
        lines.append(("updated", updated))
        let head = tenant == Store.defaultTenant ? name : "\(name) of tenant \(tenant)"
        let origin = provenance.sorted { $0.key < $1.key }.map { ($0.key, shortened($0.value)) }
        return singleLine(head) + "\n" + Self.block(lines) + (origin.isEmpty ? "" : "provenance\n" + Self.block(origin))
    }

    private static func block(_ lines: [(String, String)]) -> String {
        let width = lines.map(\.0.count).max() ?? 0
        return lines.map { key, value in
            "  " + singleLine(key) + String(repeating: " ", count: width - key.count + 2) + singleLine(value) + "\n"
        }.joined()
    }

    /// A line's worth; --json has it all.
    private func shortened(_ text: String) -> String { text.count <= 100 ? text : text.prefix(99) + "…" }
}
