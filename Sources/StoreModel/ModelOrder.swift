package import ReelKV

/// One thing that somebody who has the store open is to do with it, spelled out, and what came of it; each is a line of text.
package enum ModelOrder: Equatable {
    /// Writes so many tokens at once, or leaves the writer open.
    case write(SequenceName, profile: String, ids: [Int32], isFinished: Bool)
    /// Ends the writer that was left open.
    case finish
    case fork(SequenceName, to: String, count: Int)
    case truncate(SequenceName, count: Int)
    case remove(SequenceName)
    case pin(SequenceName, Bool)
    /// Whether a sequence holds these tokens and the tensors that belong to them, is found by them, and by shorter prefixes.
    case check(SequenceName, ids: [Int32])
    /// Names, with how many tokens each has and whether it is pinned.
    case list
    case evict(bytes: Int)
    /// 0 for no quota.
    case quota(bytes: Int)
    case demote, compact, verify
    /// Gives the encrypted tenant the key of a number.
    case rekey(Int)
    case unlock(Int)

    package enum Reply: Equatable {
        case done
        case listed([SequenceName: String])
        /// The store refused.
        case refused(code: String, message: String)
        /// What is wrong.
        case wrong(String)
    }
}

// MARK: - As text

extension ModelOrder {
    package var line: String {
        switch self {
        case .write(let name, let profile, let ids, let isFinished):
            "write \(Self.text(name)) \(profile) \(Self.text(ids)) \(isFinished)"
        case .finish: "finish"
        case .fork(let name, let target, let count): "fork \(Self.text(name)) \(target) \(count)"
        case .truncate(let name, let count): "truncate \(Self.text(name)) \(count)"
        case .remove(let name): "remove \(Self.text(name))"
        case .pin(let name, let isPinned): "pin \(Self.text(name)) \(isPinned)"
        case .check(let name, let ids): "check \(Self.text(name)) \(Self.text(ids))"
        case .list: "list"
        case .evict(let bytes): "evict \(bytes)"
        case .quota(let bytes): "quota \(bytes)"
        case .demote: "demote"
        case .compact: "compact"
        case .verify: "verify"
        case .rekey(let number): "rekey \(number)"
        case .unlock(let number): "unlock \(number)"
        }
    }

    package init?(_ line: Substring) {
        let words = line.split(separator: " ")
        guard let verb = words.first else { return nil }
        let name = words.count > 1 ? Self.name(words[1]) : nil
        func number(_ place: Int) -> Int? { words.indices.contains(place) ? Int(words[place]) : nil }
        func flag(_ place: Int) -> Bool? { words.indices.contains(place) ? Bool(String(words[place])) : nil }
        switch (verb, words.count, name, number(1)) {
        case ("write", 5, let name?, _):
            guard let flag = flag(4) else { return nil }
            self = .write(name, profile: String(words[2]), ids: Self.ids(words[3]), isFinished: flag)
        case ("finish", 1, _, _): self = .finish
        case ("fork", 4, let name?, _):
            guard let count = number(3) else { return nil }
            self = .fork(name, to: String(words[2]), count: count)
        case ("truncate", 3, let name?, _):
            guard let count = number(2) else { return nil }
            self = .truncate(name, count: count)
        case ("remove", 2, let name?, _): self = .remove(name)
        case ("pin", 3, let name?, _):
            guard let flag = flag(2) else { return nil }
            self = .pin(name, flag)
        case ("check", 3, let name?, _): self = .check(name, ids: Self.ids(words[2]))
        case ("list", 1, _, _): self = .list
        case ("evict", 2, _, let bytes?): self = .evict(bytes: bytes)
        case ("quota", 2, _, let bytes?): self = .quota(bytes: bytes)
        case ("demote", 1, _, _): self = .demote
        case ("compact", 1, _, _): self = .compact
        case ("verify", 1, _, _): self = .verify
        case ("rekey", 2, _, let number?): self = .rekey(number)
        case ("unlock", 2, _, let number?): self = .unlock(number)
        default: return nil
        }
    }

    fileprivate static func text(_ name: SequenceName) -> String { "\(name.tenant):\(name)" }

    fileprivate static func name(_ text: Substring) -> SequenceName? {
        let parts = text.split(separator: ":", maxSplits: 1)
        guard parts.count == 2, var name = SequenceName(String(parts[1])) else { return nil }
        name.tenant = String(parts[0])
        return name
    }

    private static func text(_ ids: [Int32]) -> String { ids.isEmpty ? "-" : ids.map(String.init).joined(separator: ",") }
    private static func ids(_ text: Substring) -> [Int32] {
        text == "-" ? [] : text.split(separator: ",").compactMap { Int32($0) }
    }
}

extension ModelOrder.Reply {
    package var line: String {
        switch self {
        case .done: "done"
        case .listed(let names): "listed " + names.map { "\(ModelOrder.text($0.key))=\($0.value)" }.joined(separator: " ")
        case .refused(let code, let message): "refused \(code) \(Self.oneLine(message))"
        case .wrong(let message): "wrong \(Self.oneLine(message))"
        }
    }

    package init?(_ line: Substring) {
        let words = line.split(separator: " ")
        switch words.first {
        case "done": self = .done
        case "listed":
            var names: [SequenceName: String] = [:]
            for word in words.dropFirst() {
                let parts = word.split(separator: "=")
                guard parts.count == 2, let name = ModelOrder.name(parts[0]) else { return nil }
                names[name] = String(parts[1])
            }
            self = .listed(names)
        case "refused":
            guard words.count > 1 else { return nil }
            self = .refused(code: String(words[1]), message: words.dropFirst(2).joined(separator: " "))
        case "wrong": self = .wrong(String(line.dropFirst("wrong ".count)))
        default: return nil
        }
    }

    private static func oneLine(_ text: String) -> String { text.split(separator: "\n").joined(separator: " ") }
}
