import Rendering

/// `1 page`, `2 pages`, `1,000 pages`.
func counted(_ count: Int, _ noun: String) -> String { "\(Format.count(count)) \(noun)\(count == 1 ? "" : "s")" }
