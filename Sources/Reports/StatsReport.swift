import KVCodec
package import ReelKV

/// What a store holds and how it was used.
package struct StatsReport: Encodable {
    /// What is encoded with one profile.
    package struct Profile: Encodable {
        package var profile: String
        package var pages: Int
        package var tokens: Int
        package var elements: Int
        package var storedBytes: Int
        package var bitsPerElement: Double
        package var exactBytes: Int
        package var ratio: Double

        enum CodingKeys: String, CodingKey {
            case profile, pages, tokens, elements, ratio
            case storedBytes = "stored_bytes"
            case bitsPerElement = "bits_per_element"
            case exactBytes = "exact_bytes"
        }

        package init(_ profile: StoreStatistics.Profile) {
            self.profile = KVCodec.Profile.name(of: profile.profileID)
            pages = profile.pages
            tokens = profile.tokens
            elements = profile.elements
            storedBytes = profile.imageBytes
            bitsPerElement = profile.bitsPerElement
            exactBytes = profile.exactBytes
            ratio = profile.imageBytes > 0 ? Double(profile.exactBytes) / Double(profile.imageBytes) : 0
        }
    }

    package var tokens: Int
    package var elements: Int
    package var storedBytes: Int
    package var indexBytes: Int
    package var bitsPerElement: Double
    package var exactBytes: Int
    package var ratio: Double
    package var models: Int
    package var tenants: Int
    package var videos: Int
    package var sessions: Int
    package var building: Int
    package var profiles: [Profile]
    package var volumes: [VolumeReport]
    package var usage: UsageReport
    package var scrub: ScrubStatisticsReport

    enum CodingKeys: String, CodingKey {
        case tokens, elements, ratio, models, tenants, videos, sessions, building, profiles, volumes, usage, scrub
        case storedBytes = "stored_bytes"
        case indexBytes = "index_bytes"
        case bitsPerElement = "bits_per_element"
        case exactBytes = "exact_bytes"
    }

    package init(_ statistics: StoreStatistics) {
        tokens = statistics.tokens
        elements = statistics.elements
        storedBytes = statistics.storedBytes
        indexBytes = statistics.indexBytes
        bitsPerElement = statistics.bitsPerElement
        exactBytes = statistics.exactBytes
        ratio = statistics.ratio
        models = statistics.models
        tenants = statistics.tenants
        videos = statistics.videos
        sessions = statistics.sessions
        building = statistics.building
        profiles = statistics.profiles.map(Profile.init)
        volumes = statistics.volumes.map(VolumeReport.init)
        usage = UsageReport(statistics)
        scrub = ScrubStatisticsReport(statistics.scrub)
    }
}
