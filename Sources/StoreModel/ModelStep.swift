import KVCodec

/// One step of a random run, and one line of a script: `append 2 40 1`. Which sequence it is about is a number, and so is how far it goes
/// and who takes it: what these come to depends on what there is by then, so that a script stays one when lines are left out.
package struct ModelStep: Hashable, CustomStringConvertible {
    package enum Verb: String, CaseIterable {
        case append, begin, finish, fork, truncate, remove, pin, unpin, match, restore
        case evict, quota, demote, compact, rekey, reopen, verify
    }

    package var verb: Verb
    /// Of the sequences that names are made for.
    package var sequence: Int
    package var amount: Int
    /// Of those that have the store open.
    package var actor: Int

    package init(_ verb: Verb, _ sequence: Int, _ amount: Int, _ actor: Int) {
        (self.verb, self.sequence, self.amount, self.actor) = (verb, sequence, amount, actor)
    }

    package init?(_ line: Substring) {
        let words = line.split(separator: " ")
        let numbers = words.dropFirst().compactMap { Int($0) }
        guard words.count == 4, numbers.count == 3, numbers.allSatisfy({ $0 >= 0 }), let verb = Verb(rawValue: String(words[0]))
        else { return nil }
        self.init(verb, numbers[0], numbers[1], numbers[2])
    }

    package var description: String { "\(verb) \(sequence) \(amount) \(actor)" }

    package static func random(_ count: Int, seed: UInt64) -> [ModelStep] {
        var random = SplitMix64(seed: seed)
        let often: [Verb] = Verb.allCases + [.append, .append, .append, .append, .begin, .finish, .match, .restore]
        func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
        return (0..<count).map { _ in ModelStep(often[pick(often.count)], pick(12), pick(150), pick(6)) }
    }
}
