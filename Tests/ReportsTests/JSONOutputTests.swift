import Reports
import Testing

@Suite("JSON of reports")
struct JSONOutputTests {
    @Test func keysAreInOrder() throws {
        let value: [String: Double] = ["ratio": 8.5, "bits_per_element": 1.5, "path/a": .nan, "x": .infinity]
        #expect(
            try JSONOutput.text(value, pretty: false) == #"{"bits_per_element":1.5,"path/a":"nan","ratio":8.5,"x":"inf"}"# + "\n")
        #expect(try JSONOutput.text(["b": 1, "a": 2], pretty: true) == "{\n  \"a\" : 2,\n  \"b\" : 1\n}\n")
    }
}
