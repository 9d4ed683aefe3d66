/// How many columns of a terminal a text takes, and texts made to fit.
enum TextWidth {
    /// Columns that `text` takes: 2 for East Asian wide characters and emoji, 0 for marks that combine with what is before.
    ///
    /// An approximation of Unicode Standard Annex 11 by ranges: enough to line up names, not a table of all characters.
    static func columns(_ text: String) -> Int {
        text.reduce(0) { $0 + columns($1) }
    }

    private static func columns(_ character: Character) -> Int {
        guard let scalar = character.unicodeScalars.first else { return 0 }
        switch scalar.properties.generalCategory {
        case .control, .format, .nonspacingMark, .enclosingMark: return 0
        default: return isWide(scalar) || scalar.properties.isEmojiPresentation ? 2 : 1
        }
    }

    private static func isWide(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xA000...0xA4CF,
            0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE4F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x20000...0x3FFFD:
            true
        default: false
        }
    }

    /// `text` with spaces before or behind it, up to `width` columns.
    static func padded(_ text: String, to width: Int, alignRight: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - columns(text)))
        return alignRight ? space + text : text + space
    }

    /// `text`, cut to `width` columns with an ellipsis where it is longer.
    static func cut(_ text: String, to width: Int) -> String {
        guard columns(text) > width else { return text }
        var result = ""
        var used = 1
        for character in text {
            used += columns(character)
            guard used <= width else { break }
            result.append(character)
        }
        return result + "…"
    }

    /// `text` on one line, without anything that a terminal would obey: names come from outside.
    static func printable(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.properties.generalCategory {
            case .control, .lineSeparator, .paragraphSeparator, .surrogate:
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            case .format where scalar != "\u{200D}":
                // Direction overrides and the like; the joiner inside emoji is harmless.
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
