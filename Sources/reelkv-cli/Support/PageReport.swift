import KVCodec
import ReelKV
import Rendering
import Reports

/// A page as listings show it.
struct PageReport: Encodable {
    var chainHash: String
    var model: String
    var tenant: String
    var firstToken: Int
    var tokens: Int
    var profile: String
    var tail: Bool
    var keyError: Float
    var valueError: Float
    var bytes: Int
    var volume: UInt64
    var page: UInt64
    var references: Int
    var quarantined: Bool
    var created: String

    enum CodingKeys: String, CodingKey {
        case model, tenant, tokens, profile, tail, bytes, volume, page, references, quarantined, created
        case chainHash = "chain_hash"
        case firstToken = "first_token"
        case keyError = "key_error"
        case valueError = "value_error"
    }

    init(_ page: StoredPage) {
        chainHash = page.chainHash.hex
        model = page.model
        tenant = page.tenant
        firstToken = page.tokens.lowerBound
        tokens = page.tokens.count
        profile = Profile.name(of: page.profileID)
        tail = page.isTail
        keyError = page.keyError
        valueError = page.valueError
        bytes = page.imageBytes
        volume = page.volumeID
        self.page = page.pageID
        references = page.references
        quarantined = page.isQuarantined
        created = timestamp(page.createdSeconds)
    }

    /// As sequences go on: by tenant, model and first token.
    static func isBefore(_ left: StoredPage, _ right: StoredPage) -> Bool {
        (left.tenant, left.model, left.tokens.lowerBound, left.pageID)
            < (right.tenant, right.model, right.tokens.lowerBound, right.pageID)
    }

    static func table(_ pages: [PageReport]) -> String {
        var table = TextTable(
            .left("CHAIN HASH"), .left("TENANT"), .left("MODEL"), .right("TOKENS"), .left("PROFILE"), .left("KIND"),
            .right("NMSE K"), .right("NMSE V"), .right("BYTES"), .right("VOLUME"), .right("REFERENCES"), .left("STATE"))
        for page in pages {
            table.append(
                String(page.chainHash.prefix(12)), page.tenant, page.model,
                "\(page.firstToken)..<\(page.firstToken + page.tokens)", page.profile, page.tail ? "tail" : "page",
                errorText(page.keyError), errorText(page.valueError), Format.count(page.bytes), "\(page.volume)",
                "\(page.references)", page.quarantined ? "damaged" : "")
        }
        return table.text()
    }
}
