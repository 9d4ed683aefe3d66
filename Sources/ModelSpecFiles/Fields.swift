/// The members of a JSON object, read by name and checked for type and range. A member that is null counts as absent.
struct Fields {
    let members: [String: JSONValue]
    private let file: String
    private let path: String

    init(_ members: [String: JSONValue], file: String, path: String = "") {
        self.members = members
        self.file = file
        self.path = path
    }

    func error(_ field: String, _ message: String) -> ModelSpecFileError {
        ModelSpecFileError(file: file, field: path + field, message)
    }

    private func wrongType(_ field: String, _ wanted: String, _ value: JSONValue) -> ModelSpecFileError {
        error(field, "must be \(wanted), not \(value.kind).")
    }

    /// The value of a member that is there and not null.
    func value(_ field: String) -> JSONValue? {
        members[field].flatMap { $0 == .null ? nil : $0 }
    }

    func has(_ field: String) -> Bool { value(field) != nil }

    /// Turns `nil` into an error.
    func required<Value>(_ value: Value?, _ field: String, _ expected: String) throws(ModelSpecFileError) -> Value {
        guard let value else { throw error(field, "is missing; it must be \(expected).") }
        return value
    }

    /// Throws for a member that is none of `known`: a misspelt field must not be silently ignored.
    func allowOnly(_ known: [String]) throws(ModelSpecFileError) {
        if let unknown = members.keys.sorted().first(where: { !known.contains($0) }) {
            throw error(unknown, "is not known here; the fields are \(known.joined(separator: ", ")).")
        }
    }

    // MARK: - Values

    func bool(_ field: String) throws(ModelSpecFileError) -> Bool? {
        guard let value = value(field) else { return nil }
        guard case .bool(let result) = value else { throw wrongType(field, "true or false", value) }
        return result
    }

    func string(_ field: String) throws(ModelSpecFileError) -> String? {
        guard let value = value(field) else { return nil }
        guard case .string(let result) = value else { throw wrongType(field, "a text", value) }
        return result
    }

    /// A finite number above 0.
    func positive(_ field: String) throws(ModelSpecFileError) -> Double? {
        guard let value = value(field) else { return nil }
        guard case .number(let result) = value, result > 0, result.isFinite else {
            throw wrongType(field, "a number above 0", value)
        }
        return result
    }

    func integer(_ field: String, in range: ClosedRange<Int>) throws(ModelSpecFileError) -> Int? {
        guard let value = value(field) else { return nil }
        return try integer(value, field, in: range)
    }

    private func integer(
        _ value: JSONValue, _ field: String, in range: ClosedRange<Int>
    ) throws(ModelSpecFileError) -> Int {
        guard case .number(let number) = value, let result = Int(exactly: number), range.contains(result) else {
            throw wrongType(field, "a whole number from \(range.lowerBound) to \(range.upperBound)", value)
        }
        return result
    }

    func array(_ field: String) throws(ModelSpecFileError) -> [JSONValue]? {
        guard let value = value(field) else { return nil }
        guard case .array(let values) = value else { throw wrongType(field, "an array", value) }
        return values
    }

    func integers(_ field: String, in range: ClosedRange<Int>) throws(ModelSpecFileError) -> [Int]? {
        guard let values = try array(field) else { return nil }
        var result: [Int] = []
        for (index, value) in values.enumerated() {
            result.append(try integer(value, "\(field)[\(index)]", in: range))
        }
        return result
    }

    func object(_ field: String) throws(ModelSpecFileError) -> Fields? {
        guard let value = value(field) else { return nil }
        return try object(value, field)
    }

    func object(_ value: JSONValue, _ field: String) throws(ModelSpecFileError) -> Fields {
        guard case .object(let members) = value else { throw wrongType(field, "an object", value) }
        return Fields(members, file: file, path: "\(path)\(field).")
    }

    // MARK: - Per layer

    /// One value for all layers, or an array with one for each; null or 0 means none where `mayBeNone`.
    func perLayer(
        _ field: String, layerCount: Int, in range: ClosedRange<Int>, mayBeNone: Bool = false
    ) throws(ModelSpecFileError) -> [Int?]? {
        guard let value = value(field) else { return nil }
        func one(_ value: JSONValue, _ field: String) throws(ModelSpecFileError) -> Int? {
            if mayBeNone, value == .null || value == .number(0) { return nil }
            return try integer(value, field, in: range)
        }
        guard case .array(let values) = value else {
            return Array(repeating: try one(value, field), count: layerCount)
        }
        try checkCount(values.count, field, layerCount)
        var result: [Int?] = []
        for (index, value) in values.enumerated() { result.append(try one(value, "\(field)[\(index)]")) }
        return result
    }

    func checkCount(_ count: Int, _ field: String, _ layerCount: Int) throws(ModelSpecFileError) {
        guard count == layerCount else {
            throw error(field, "has \(count) entries, but the model has \(layerCount) layers; it must have one for each.")
        }
    }
}
