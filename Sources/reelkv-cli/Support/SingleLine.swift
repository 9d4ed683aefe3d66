/// Text from outside, fit for one line of a terminal: control characters become spaces.
func singleLine(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: result.unicodeScalars.append(" ")
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
