// How numbers are written.

import KVReport
import Testing

@Suite struct PrintedTests {
    /// With plain spaces, as a reader sees it.
    private func text(_ printed: Printed) -> String { printed.text.replacing(thinSpace, with: " ") }

    @Test func sentencesGetTwoDigitsAndTablesThree() {
        #expect(text(.seconds(1.618)) == "1.6 s")
        #expect(text(.seconds(1.618, .table)) == "1.62 s")
        #expect(text(.number(0.9)) == "0.90")
        #expect(text(.number(9.96)) == "10")
        #expect(text(.number(9.96, .table)) == "9.96")
        #expect(text(.number(0.0999)) == "0.10")
        #expect(text(.dollars(0.6274)) == "$0.63")
        #expect(text(.dollars(-0.6274, .table)) == "−$0.627")
        #expect(text(.number(1234.5)) == "1,200")
    }

    @Test(arguments: [
        (0, "0 s"), (3.4e-6, "3.4 µs"), (4.2e-4, "420 µs"), (0.021, "21 ms"), (0.0996, "0.10 s"), (0.52, "0.52 s"),
        (140, "140 s"),
        (1800, "30 min"), (7200, "2.0 h"),
    ]) func timesTakeTheUnitThatReadsBest(_ seconds: Double, _ words: String) {
        #expect(text(.seconds(seconds)) == words)
    }

    @Test(arguments: [
        (999, "1.0 kB"), (1.5e3, "1.5 kB"), (999.6e6, "1.0 GB"), (18.95e12, "19 TB"), (3.1e15, "3.1 PB"), (0, "0 B"),
    ]) func bytesAreDecimal(_ bytes: Double, _ words: String) { #expect(text(.bytes(bytes)) == words) }

    @Test func zeroAndAllAreSaidOnlyWhenExact() {
        #expect(text(.percent(0)) == "0 %")
        #expect(text(.percent(0.004)) == "under 1 %")
        #expect(text(.percent(0.996)) == "over 99 %")
        #expect(text(.percent(1)) == "100 %")
        #expect(text(.percent(0, .table)) == "0.0 %")
        #expect(text(.percent(0.0004, .table)) == "<0.1 %")
        #expect(text(.percent(0.9996, .table)) == ">99.9 %")
        #expect(text(.percent(0.598)) == "60 %")
        #expect(text(.percent(0.598, .table)) == "59.8 %")
    }

    @Test func differencesAreThoseOfThePrintedNumbers() {
        // 84.6 − 62.4 is 22.2, but a reader sees 85 and 62.
        #expect(Printed.points(.percent(0.846), against: .percent(0.624)) == "+23 points")
        #expect(Printed.points(.percent(0.61), against: .percent(0.62)) == "−1 point")
        #expect(Printed.change(.dollars(0.3497), against: .dollars(0.6274)) == "−44\(thinSpace)%")
        #expect(Printed.ratio(.seconds(0.52), against: .seconds(1.62), lessIsBetter: true) == "÷ 3.1")
        #expect(Printed.ratio(.number(1.5), against: .number(0.9), lessIsBetter: false) == "× 1.7")
        #expect(Printed.ratio(.number(0), against: .number(0.9), lessIsBetter: true) == nil)
    }

    @Test func countsAreWholeWithCommas() {
        #expect(text(.count(12_000)) == "12,000")
        #expect(text(.count(-1_234_567)) == "−1,234,567")
        #expect(text(.tokens(300_000_000, .given)) == "300 M")
        #expect(text(.tokens(999)) == "999")
    }

    @Test func givenNumbersKeepNoZerosAtTheEnd() {
        #expect(text(.seconds(2, .given)) == "2 s")
        #expect(text(.seconds(0.05, .given)) == "50 ms")
        #expect(text(.price(3)) == "$3.00")
        #expect(text(.price(0.125)) == "$0.125")
    }

    @Test func thePrintedValueIsWhatTheTextSays() {
        for value in [0.00123, 0.52, 1.618, 24, 95, 1234.5, 9.96e9] {
            let words = text(.number(value, .table)).replacing(",", with: "")
            #expect(Double(words) == Printed.number(value, .table).value)
        }
    }
}
