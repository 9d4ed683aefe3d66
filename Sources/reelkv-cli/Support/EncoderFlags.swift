import ArgumentParser
import KVCodec

/// Choices of the encoder beside the profile.
struct EncoderFlags: ParsableArguments {
    enum Channels: String, ExpressibleByArgument, CaseIterable {
        case range, variance
        case outlierCount = "outlier-count"
    }

    enum Scales: String, ExpressibleByArgument, CaseIterable {
        case minMax = "min-max"
        case clip
        case leastSquares = "least-squares"
    }

    @Option(
        help: ArgumentHelp(
            "Tokens that get more bits under the profiles that have them: value-norm[:FRACTION], random[:FRACTION], none, a "
                + "list such as 5,80..<90, or a file that holds one.",
            valueName: "tokens"))
    var protect: String?

    @Option(help: ArgumentHelp("Tokens at the start of the sequence to keep exact: attention sinks.", valueName: "n"))
    var exactPrefix: Int?

    @Option(help: ArgumentHelp("Tokens that share a scale, a multiple of 8.", valueName: "n"))
    var groupSize: Int?

    @Option(help: "What makes a key channel anomalous, so that it keeps 2 bits.")
    var channelSelection: Channels?

    @Option(help: "How scales are found.")
    var scaleSearch: Scales?

    @Flag(help: "Quantize the keys as they are, without undoing their rotary embedding.")
    var keepRotated = false

    @Flag(help: "Quantize 1-bit key channels without a Fourier transform.")
    var noFourier = false

    func validate() throws {
        if let groupSize, groupSize < 8 || groupSize > 1024 || groupSize % 8 != 0 {
            throw ValidationError("--group-size \(groupSize): give a multiple of 8 from 8 to 1024.")
        }
        if let exactPrefix, exactPrefix < 0 { throw ValidationError("--exact-prefix \(exactPrefix): give 0 or more.") }
    }

    func options() throws -> (options: EncoderOptions, protected: Set<Int>) {
        var options = EncoderOptions()
        if let exactPrefix { options.exactPrefix = exactPrefix }
        if let groupSize { options.groupSize = groupSize }
        switch channelSelection {
        case .range: options.channelSelection = .range
        case .variance: options.channelSelection = .variance
        case .outlierCount: options.channelSelection = .outlierCount
        case nil: break
        }
        switch scaleSearch {
        case .minMax: options.scaleSearch = .minMax
        case .clip: options.scaleSearch = .clip
        case .leastSquares: options.scaleSearch = .leastSquares
        case nil: break
        }
        options.unrotatesKeys = !keepRotated
        options.transformsKeys = !noFourier
        guard let protect else { return (options, []) }
        switch try Protection(protect) {
        case .rule(let protection):
            options.protection = protection
            return (options, [])
        case .tokens(let tokens):
            options.protection = .listed
            return (options, tokens)
        }
    }
}
