import ArgumentParser
import KVMetrics
import Rendering
import Safetensors

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare", abstract: "Measure how the tensors of one safetensors file differ from another's.",
        discussion: """
            For each tensor that both files have: whether the bytes are equal, the NMSE (sum of squared differences over sum of \
            squares of the first file), and the largest difference. Needs no store.

            With --exact the exit status is 1 unless every tensor of the cache is in both files with the same bytes.

            Example:
              reelkv export session/alice out.safetensors
              reelkv compare alice.safetensors out.safetensors
            """)

    @Argument(help: "The original.", completion: .file(extensions: ["safetensors"]))
    var original: String

    @Argument(help: "What is compared with it.", completion: .file(extensions: ["safetensors"]))
    var other: String

    @Flag(help: "Fail unless the cache tensors are equal bit for bit.")
    var exact = false

    @OptionGroup var output: OutputOption

    func run() throws {
        let first = try SafetensorsFile(path: original)
        let second = try SafetensorsFile(path: other)
        let names = first.names.filter { second.tensors[$0] != nil }.sorted(by: Self.isBefore)
        guard !names.isEmpty else {
            throw Failure("\(original) and \(other) have no tensor of the same name: there is nothing to compare")
        }
        let report = CompareReport(
            tensors: try names.map { try CompareReport.Tensor($0, of: first, and: second) },
            onlyInFirst: first.names.filter { second.tensors[$0] == nil },
            onlyInSecond: second.names.filter { first.tensors[$0] == nil })
        try output.write(report) { $0.text(original, other) }
        guard exact else { return }
        let cache = try CacheFile(path: original)
        let differing = cache.layers.flatMap { [$0.key.name, $0.value.name] }
            .filter { name in !report.tensors.contains { $0.name == name && $0.equal } }
        guard differing.isEmpty else {
            throw Failure("\(differing.count) of \(2 * cache.layers.count) cache tensors differ, the first is '\(differing[0])'")
        }
    }

    /// Numbers inside names count as numbers: layers.2 comes before layers.10.
    private static func isBefore(_ left: String, _ right: String) -> Bool {
        let (a, b) = (left.split(separator: "."), right.split(separator: "."))
        for (x, y) in zip(a, b) where x != y {
            if let m = Int(x), let n = Int(y) { return m < n }
            return x < y
        }
        return a.count < b.count
    }
}

struct CompareReport: Encodable {
    struct Tensor: Encodable {
        var name: String
        var dtype: String
        var shape: [Int]
        var equal: Bool
        /// Absent where the two cannot be compared: other shapes, or no floats.
        var nmse: Double?
        var maxDifference: Double?
        var note: String?

        enum CodingKeys: String, CodingKey {
            case name, dtype, shape, equal, nmse, note
            case maxDifference = "max_difference"
        }

        init(_ name: String, of first: SafetensorsFile, and second: SafetensorsFile) throws {
            let info = try first.info(of: name)
            let other = try second.info(of: name)
            self.name = name
            dtype = info.dataType.rawValue
            shape = info.shape
            guard info.shape == other.shape else {
                equal = false
                note = "the other has the shape \(other.shape)"
                return
            }
            equal =
                try info.dataType == other.dataType
                && first.withBytes(of: name) { a in try second.withBytes(of: name) { b in a.elementsEqual(b) } }
            guard Self.isFloat(info.dataType), Self.isFloat(other.dataType) else { return }
            if equal {
                (nmse, maxDifference) = (0, 0)
                return
            }
            if other.dataType != info.dataType { note = "the other is \(other.dataType.rawValue)" }
            let (values, approximate) = (try first.floats(name), try second.floats(name))
            nmse = normalizedSquaredError(of: approximate, against: values)
            maxDifference = zip(values, approximate).reduce(0) { largest, pair in
                pair.0.isFinite ? max(largest, Double(abs(pair.0 - pair.1))) : largest
            }
        }

        private static func isFloat(_ type: DataType) -> Bool {
            [.float16, .bfloat16, .float32, .float64].contains(type)
        }
    }

    var tensors: [Tensor]
    var onlyInFirst: [String]
    var onlyInSecond: [String]

    enum CodingKeys: String, CodingKey {
        case tensors
        case onlyInFirst = "only_in_first"
        case onlyInSecond = "only_in_second"
    }

    func text(_ first: String, _ second: String) -> String {
        var table = TextTable(
            .left("TENSOR"), .left("DTYPE"), .left("SHAPE"), .left("EQUAL"), .right("NMSE"), .right("MAX DIFFERENCE"), .left(""))
        for tensor in tensors {
            table.append(
                tensor.name, tensor.dtype, "\(tensor.shape)", tensor.equal ? "yes" : "no",
                tensor.nmse.map { Format.significant($0, digits: 3) } ?? "-",
                tensor.maxDifference.map { Format.significant($0, digits: 3) } ?? "-", tensor.note ?? "")
        }
        var text = table.text()
        for (file, names) in [(first, onlyInFirst), (second, onlyInSecond)] where !names.isEmpty {
            text += "only in \(file): \(names.joined(separator: ", "))\n"
        }
        return text
    }
}
