import Rendering
import Testing

@Suite struct FormatTests {
    @Test(arguments: [
        (0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567"), (Int.max, "9,223,372,036,854,775,807"),
        (Int.min, "-9,223,372,036,854,775,808"),
    ])
    func count(value: Int, text: String) {
        #expect(Format.count(value) == text)
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (10_240, "10.0 KiB"), (1_023_488, "1000 KiB"),
        (1_048_064, "1.00 MiB"), (1_048_575, "1.00 MiB"), (43_486_543_872, "40.5 GiB"), (Int.max, "8.00 EiB"),
        (-1536, "-1.50 KiB"), (Int.min, "-8.00 EiB"),
    ])
    func bytes(value: Int, text: String) {
        #expect(Format.bytes(value) == text)
    }

    @Test(
        arguments: [
            (0, "0 s"), (5e-8, "50.0 ns"), (9.999e-7, "1.00 µs"), (8.3e-4, "830 µs"), (9.9996e-4, "1.00 ms"), (0.0123, "12.3 ms"),
            (4.56, "4.56 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (200.4, "3 min 20 s"), (3599.6, "1 h 00 min"),
            (7_500, "2 h 05 min"), (1e30, "2.78e+26 h"), (-4.56, "-4.56 s"), (.infinity, "–"), (.nan, "–"),
        ] as [(Double, String)])
    func duration(seconds: Double, text: String) {
        #expect(Format.duration(seconds: seconds) == text)
    }

    @Test func durations() {
        #expect(Format.duration(.milliseconds(1_500)) == "1.50 s")
        #expect(Format.duration(.nanoseconds(30)) == "30.0 ns")
    }

    @Test(
        arguments: [
            (0.0, 2, "0.00"), (0.005, 2, "0.01"), (-0.004, 2, "0.00"), (1.005e9, 0, "1005000000"), (-2.5, 0, "-3"),
            (9.999, 2, "10.00"),
            (0.1, 12, "0.100000000000"), (1e300, 2, "1e+300"), (.nan, 2, "nan"), (-.infinity, 2, "-inf"), (.infinity, 0, "inf"),
        ] as [(Double, Int, String)])
    func decimal(value: Double, places: Int, text: String) {
        #expect(Format.decimal(value, places: places) == text)
    }

    @Test(
        arguments: [
            (0.0, 3, "0"), (0.15678, 3, "0.157"), (9.996, 3, "10.0"), (999_999, 3, "1.00e+06"), (999_499, 3, "999499"),
            (2.1e-7, 3, "2.10e-07"), (0.000123, 3, "0.000123"), (0.0000123, 3, "1.23e-05"), (-0.05, 1, "-0.05"),
            (1e-300, 2, "1.0e-300"),
            (-.infinity, 3, "-inf"),
        ] as [(Double, Int, String)])
    func significant(value: Double, digits: Int, text: String) {
        #expect(Format.significant(value, digits: digits) == text)
    }

    @Test func percentage() {
        #expect(Format.percentage(0.1234) == "12.3%")
        #expect(Format.percentage(1, places: 0) == "100%")
        #expect(Format.percentage(.nan) == "–")
    }
}
