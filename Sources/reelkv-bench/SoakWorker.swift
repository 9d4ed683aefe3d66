import ArgumentParser
import KVCodec
import ReelKV

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// One process of the soak: writes its own conversations, or reads everybody's. Prints what it saw as lines of a key and a number.
struct SoakWorker: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak-worker", abstract: "One process of the soak.", shouldDisplay: false)

    enum Role: String, ExpressibleByArgument { case writer, reader }

    @Option var store: String
    @Option var role: Role
    /// Which writer of how many.
    @Option var index = 0
    @Option var writers = 1
    @Option var conversations: Int
    /// A writer's own share.
    @Option var bytes = 0
    @Option var seed: UInt64
    /// A reader reads until this file is there.
    @Option var stopFile = ""

    func run() throws {
        var work = SoakWork(
            store: try Store(opening: store),
            random: SplitMix64(seed: seed &+ UInt64(index) &* 1000 &+ (role == .reader ? 500 : 0)))
        switch role {
        case .writer:
            let own = (0..<conversations).filter { $0 % writers == index }
            while work.writtenBytes < bytes { try work.write(own) }
        case .reader:
            while access(stopFile, F_OK) != 0 { try work.read(0..<conversations) }
        }
        work.report()
    }
}

/// What a process of the soak does, and what it saw.
struct SoakWork {
    let store: Store
    var random: SplitMix64
    private(set) var writtenBytes = 0
    private var putSeconds: [Double] = []
    private var hits = 0
    private var verifiedBytes = 0
    private var wrong = 0
    private var unavailable = 0
    private var removed = 0
    private let own = SoakMemory(count: SoakConversation.bytes)
    private let expected = SoakMemory(count: SoakConversation.bytes)

    init(store: Store, random: SplitMix64) {
        self.store = store
        self.random = random
    }

    private mutating func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }

    /// A turn of one of the conversations: what of it is stored is checked, what is not is appended. Now and then one is deleted.
    mutating func write(_ conversations: [Int]) throws {
        let conversation = SoakConversation(number: conversations[pick(conversations.count)])
        let turn = 1 + pick(SoakConversation.turns)
        let name = SequenceName.session("c\(conversation.number).t\(turn)")
        if pick(10) == 0 {
            try removeOne(of: conversations)
            return
        }
        let count = turn * SoakConversation.turnTokens
        let tokens = try conversation.tokens(count)
        let prefix = try store.longestPrefix(of: tokens, model: SoakConversation.model.name)
        if prefix.tokenCount > 0 { try check(prefix, of: conversation) }
        guard prefix.tokenCount < count else { return }
        do {
            try append(conversation, tokens, after: prefix, as: name)
        } catch let error as StoreError where error.code == .conflict || error.code == .pageUnavailable {
            unavailable += 1  // what it goes on from was evicted meanwhile
        }
    }

    private mutating func removeOne(of conversations: [Int]) throws {
        let own = Set(conversations.map { "c\($0)" })
        let names = try store.sequences(.session).map(\.name).filter { own.contains(String($0.name.prefix { $0 != "." })) }
        guard !names.isEmpty else { return }
        do {
            try store.remove(names[pick(names.count)])
            removed += 1
        } catch let error as StoreError where error.code == .notFound {}  // evicted meanwhile
    }

    private mutating func append(
        _ conversation: SoakConversation, _ tokens: TokenSequence, after prefix: StoredPrefix, as name: SequenceName
    ) throws {
        let writer = try store.writer(for: name, model: SoakConversation.model.name, profile: .exact, startingFrom: prefix)
        var first = prefix.tokenCount
        while first < tokens.count {
            // puts of one size, so that their times compare
            let end = min(tokens.count, (first / SoakConversation.turnTokens + 1) * SoakConversation.turnTokens)
            let memory = own.prefix((end - first) * SoakConversation.model.exactBytesPerToken)
            conversation.fill(memory, tokens: first..<end)
            let clock = ContinuousClock()
            let time = try clock.measure {
                try writer.append(tokens[first..<end], layers: try SoakConversation.layers(memory, tokens: end - first))
                try end == tokens.count ? writer.finish() : writer.flush()
            }
            if end - first == SoakConversation.turnTokens { putSeconds.append(time.seconds) }
            writtenBytes += memory.count
            first = end
        }
    }

    /// Restores what is stored of some conversation and compares every byte.
    mutating func read(_ conversations: Range<Int>) throws {
        let conversation = SoakConversation(number: conversations.lowerBound + pick(conversations.count))
        let tokens = try conversation.tokens(SoakConversation.turns * SoakConversation.turnTokens)
        let prefix = try store.longestPrefix(of: tokens, model: SoakConversation.model.name)
        if prefix.tokenCount > 0 { try check(prefix, of: conversation) } else { usleep(1000) }
    }

    private mutating func check(_ prefix: StoredPrefix, of conversation: SoakConversation) throws {
        let count = prefix.tokenCount * SoakConversation.model.exactBytesPerToken
        let restored = own.prefix(count)
        do {
            try store.restore(
                prefix,
                into: { layer in
                    try SoakConversation.destination(restored, tokens: prefix.tokenCount, layer: layer)
                })
        } catch let error as StoreError where error.code == .pageUnavailable {
            unavailable += 1  // evicted between the look-up and the restore: a miss, and said so
            return
        }
        let right = expected.prefix(count)
        conversation.fill(right, tokens: 0..<prefix.tokenCount)
        hits += 1
        verifiedBytes += count
        if !SoakMemory.areEqual(restored, right) { wrong += 1 }
    }

    func report() {
        let quarter = max(1, putSeconds.count / 4)
        print("written \(writtenBytes)")
        print("hits \(hits)")
        print("verified \(verifiedBytes)")
        print("wrong \(wrong)")
        print("unavailable \(unavailable)")
        print("removed \(removed)")
        print("puts \(putSeconds.count)")
        if putSeconds.isEmpty { return }
        let sorted = putSeconds.sorted()
        print("median \(sorted[sorted.count / 2])")
        print("p99 \(sorted[sorted.count * 99 / 100])")
        print("worst \(sorted[sorted.count - 1])")
        print("first-quarter \(median(Array(putSeconds.prefix(quarter))))")
        print("last-quarter \(median(Array(putSeconds.suffix(quarter))))")
    }
}
