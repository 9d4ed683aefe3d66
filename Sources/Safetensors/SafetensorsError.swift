/// Why a safetensors file could not be read or written.
///
/// `description` names the file and the tensor, says what is wrong, and what to do about it.
public struct SafetensorsError: Error, Sendable, Hashable {
    /// One case for each way in which a file can be wrong.
    public enum Kind: Sendable, Hashable, CaseIterable {
        // MARK: The file

        /// The file cannot be opened, or is no regular file.
        case unreadable
        /// Fewer than the 8 bytes that hold the header's length.
        case tooShort
        /// The header claims more than `SafetensorsFile.headerByteCountMax` bytes.
        case headerTooLarge
        /// The header claims more bytes than the file has.
        case headerTruncated
        /// The header is not the JSON object that the format asks for.
        case headerMalformed
        /// The file's size changed after it was opened.
        case changedWhileOpen

        // MARK: A tensor in the header

        /// Two tensors, or two metadata entries, have the same name.
        case duplicateName
        /// The element type is none of `DataType`.
        case unknownDataType
        /// The product of the shape does not fit a 64-bit integer.
        case shapeOverflow
        /// The byte range is not as long as shape and element type ask for.
        case sizeMismatch
        /// The byte range ends before it begins, or after the end of the file.
        case rangeOutOfBounds
        /// Two tensors share bytes.
        case overlap
        /// Some bytes belong to no tensor.
        case hole

        // MARK: Asking for values

        /// The file has no tensor of that name.
        case noSuchTensor
        /// The tensor's elements cannot be read as the type asked for.
        case wrongDataType
        /// A value does not fit the type asked for.
        case valueOutOfRange

        // MARK: Writing

        /// The tensors or metadata given to a writer cannot be put into one file.
        case invalidDeclaration
        /// The byte range to write lies outside of the tensor.
        case writeOutOfBounds
        /// The file cannot be created, written or renamed.
        case unwritable
        /// The disk has no room for the file. Nothing is left behind.
        case diskFull
        /// The writer has been finished.
        case writerFinished
    }

    public let kind: Kind
    /// Path of the file, as it was given.
    public let file: String
    /// The tensor concerned, if it is one.
    public let tensor: String?
    /// What is wrong, and what to do about it: one or two sentences.
    public let detail: String

    init(_ kind: Kind, file: String, tensor: String? = nil, _ detail: String) {
        self.kind = kind
        self.file = file
        self.tensor = tensor
        self.detail = detail
    }
}

extension SafetensorsError: CustomStringConvertible {
    public var description: String {
        if let tensor {
            "\(printable(file)): tensor '\(printable(tensor))': \(detail)"
        } else {
            "\(printable(file)): \(detail)"
        }
    }
}

/// A name that came from outside, fit for one line of a terminal: control characters are escaped, and what is long is cut.
func printable(_ text: String) -> String {
    let scalarCountMax = 200
    var result = ""
    for (index, scalar) in text.unicodeScalars.enumerated() {
        guard index < scalarCountMax else { return result + "…" }
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator:
            result += "\\u{" + String(scalar.value, radix: 16) + "}"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
