// Bad input gives one clear error that names file and line; nothing crashes, hangs or grows without bound.

import Foundation
import KVModel
import KVTrace
import Testing

@Suite struct TraceBadInputTests {
    private static let good = mooncake("0", "1000", "[1, 2]")

    /// The second line, and what its error must say.
    static let badLines: [(String, String)] = [
        (mooncake("1", "-5", "[1]"), "input_length is negative"),
        (mooncake("1", "1", "[1]", output: "-1"), "output_length is negative"),
        (mooncake("-1", "1", "[1]"), "timestamp is negative"),
        (mooncake("1", "1.5", "[1]"), "not a whole number of tokens"),
        (mooncake("1", "99999999999", "[1]"), "absurd"),
        (mooncake("1", "1e400", "[1]"), "not a whole number of tokens"),
        (mooncake("1e300", "1", "[1]"), "more than 292 years"),
        (mooncake("1", "1", "[-1]"), "not whole and from 0"),
        (mooncake("1", "1", "[1.5]"), "not whole and from 0"),
        (mooncake("1", "\"9\"", "[1]"), "input_length is a string, expected a number"),
        (mooncake("1", "null", "[1]"), "input_length is null, expected a number"),
        (mooncake("1", "9", "5"), "hash_ids is a number, expected an array"),
        (mooncake("1", "9", "{\"a\":1}"), "hash_ids is an object, expected an array"),
        (mooncake("1", "9", "[[1]]"), "hash_ids is an array, expected a number"),
        (mooncake("1", "9", "[1,]"), "not JSON"),
        (mooncake("1", "09", "[1]"), "needless 0"),
        (mooncake("1", "NaN", "[1]"), "not JSON: unexpected 'N'"),
        (mooncake("1", "1", "[1, 2]"), "2 blocks for 1 tokens, expected 1 of 512"),
        (mooncake("1", "2000", "[1, 2]"), "2 blocks for 2000 tokens, expected 4 of 512"),
        (mooncake("1", "513", "[2, 1]"), "block id 2 starts the path, but earlier it followed another block"),
        (mooncake("1", "513", "[7, 2]"), "block id 2 follows 7, but earlier it followed another block"),
        (mooncake("1", "1025", "[7, 8, 7]"), "block id 7 is at places 0 and 2 of one path"),
        ("{\"timestamp\": 1, \"input_length\": 5}\n", "output_length is missing"),
        (
            "{\"timestamp\":1,\"timestamp\":2,\"input_length\":5,\"output_length\":1,\"hash_ids\":[1]}\n",
            "timestamp is there twice"
        ),
        ("{}\n", "timestamp is missing"),
        ("[]\n", "where a JSON object is expected"),
        ("null\n", "where a JSON object is expected"),
        ("{\"a\": \"\\x\"}\n", "an escape such as"),
        ("{\"a\": \"\\u12g4\"}\n", "four hexadecimal digits"),
        ("{\"a\": \"open}\n", "the line ends inside a string"),
        ("{\"a\": 1\n", "the line ends where '}' is expected"),
        ("{\"a\": 1} x\n", "where the end of the line is expected"),
        ("{\"a\" 1}\n", "where ':' is expected"),
        ("{a: 1}\n", "where a field name is expected"),
        ("{\"a\": tru}\n", "where true is expected"),
        ("{\"a\": " + String(repeating: "[", count: 5000) + "\n", "nested more than 64 deep"),
        ("{\"a\": \"\u{0}\"}\n", "byte 0x00"),
        ("\u{0}\u{0}\u{0}\n", "byte 0x00"),
    ]

    @Test(arguments: badLines)
    func aBadLineIsNamed(_ line: String, _ reason: String) {
        let message = refusal(Self.good + line)
        #expect(message.hasPrefix("trace.jsonl:2: "))
        #expect(message.contains(reason))
        #expect(message.contains("; "), "no remedy: \(message)")
    }

    @Test func timesMayNotRunBackwards() {
        let message = refusal(mooncake("5", "1", "[1]") + mooncake("4.9", "1", "[1]"))
        #expect(message == "trace.jsonl:2: timestamp runs backwards; sort the file by timestamp")
    }

    @Test func textMustBeUTF8() {
        for bytes: [UInt8] in [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xE2, 0x82]] {
            let line = Array("{\"a\": \"".utf8) + bytes + Array("\"}\n".utf8)
            #expect(refusal(Array(Self.good.utf8) + line).contains("not UTF-8"))
        }
    }

    @Test func extentsMustFitThePrompt() {
        func line(_ input: Int, _ extents: String) -> String {
            "{\"timestamp\":0,\"input_length\":\(input),\"output_length\":1,\"hash_extents\":\(extents)}"
        }
        #expect(refusal(line(127, "[[0,2]]")).contains("2 blocks for 127 tokens, expected at most 1 of 64"))
        #expect(refusal(line(640, "[[0,18446744073709551615]]")).contains("expected at most 10"))
        #expect(refusal(line(640, "[[5,18446744073709551615]]")).contains("ends beyond"))
        #expect(refusal(line(640, "[[0,9223372036854775807],[9,9223372036854775807]]")).contains("expected at most 10"))
        #expect(refusal(line(640, "[[1]]")).contains("where ',' is expected"))
        #expect(refusal(line(640, "[[1,2,3]]")).contains("where ']' is expected"))
        #expect(refusal(line(640, "[1]")).contains("an extent of hash_extents is a number"))
        #expect(refusal(line(640, "[[0,2],[1,1]]")).contains("block id 1 is at places 1 and 2"))
    }

    @Test func azureRowsMustMatchTheHeader() {
        let header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        #expect(refusal(header + "2023-11-16 18:15:46.68,1\n").contains("2 columns, the header 3"))
        #expect(refusal(header + "yesterday,1,2\n").contains("TIMESTAMP is not a UTC time"))
        #expect(refusal(header + "2023-13-16 18:15:46,1,2\n").contains("TIMESTAMP is not a UTC time"))
        #expect(refusal(header + "2023-11-16 18:15:46,x,2\n").contains("ContextTokens is not a number"))
        #expect(refusal(header + "2023-11-16 18:15:46,-4,2\n").contains("ContextTokens is negative"))
        #expect(refusal(header).contains("holds no request"))
    }

    @Test func theOwnHeaderIsChecked() {
        #expect(refusal("{\"schema\":\"holdfast-trace-9\",\"blockTokens\":64}\n").contains("holdfast-trace-9"))
        #expect(refusal("{\"schema\":\"holdfast-trace-1\"}\n").contains("blockTokens"))
        #expect(refusal("{\"schema\":\"holdfast-trace-1\",\"blockTokens\":0}\n").contains("blockTokens"))
        #expect(refusal("{\"schema\":1,\"blockTokens\":64}\n").contains("schema is a number, expected a string"))
        let headerOnly = "{\"schema\":\"holdfast-trace-1\",\"blockTokens\":64}\n"
        #expect(refusal(headerOnly).contains("holds no request"))
        let tooMany = headerOnly + "{\"arrival\":0,\"input\":64,\"output\":1,\"blocks\":[[0,2]]}"
        #expect(refusal(tooMany).hasPrefix("trace.jsonl:2: 2 blocks for 64 tokens"))
        // A header cannot be skipped: every line after it depends on it.
        let skip = TraceReadOptions(skipsBadLines: true)
        #expect(refusal("{\"schema\":\"holdfast-trace-9\"}\n{}\n", skip).contains("holdfast-trace-9"))
    }

    static let strangers: [(String, String)] = [
        ("PAR1\u{15}\u{4}", "looks like Parquet"), ("SQLite format 3\u{0}", "looks like an SQLite database"),
        ("PK\u{3}\u{4}", "looks like a zip archive"), ("%PDF-1.7", "looks like a PDF"),
        ("Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18", "CSV with the columns Timestamp,Model,"),
        ("{\"prompt\": \"hi\", \"n\": 1}", "JSON lines with the fields prompt, n"),
        ("[{\"timestamp\": 1}]", "one JSON array"), ("a\tb\tc", "tab-separated text with 3 columns"),
        ("hello world", "text that starts with “hello world”"), ("{\"timestamp\": 1,", "no whole JSON object"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"), ("<!DOCTYPE html>", "an HTML page"),
        ("\u{1}\u{2}\u{3}", "a binary file"),
    ]

    @Test(arguments: strangers)
    func anUnknownFormatIsNamed(_ text: String, _ name: String) {
        let message = refusal(text)
        #expect(
            message.hasPrefix("trace.jsonl:1: no known trace format: it looks like ")
                || message.contains("starts with {"))
        #expect(message.contains(name))
        #expect(message.contains("expected one of mooncake"))
    }

    @Test func aFormatThatIsSaidOverridesWhatIsSeen() throws {
        let line = "{\"timestamp\":1,\"input_length\":9,\"output_length\":1,\"hash_ids\":[1],\"chat_id\":4}"
        #expect(try read(line).format == .bailian)
        #expect(try read(line, TraceReadOptions(format: .mooncake)).format == .mooncake)
        #expect(refusal(line, TraceReadOptions(format: .extents)).contains("hash_extents is missing"))
        #expect(refusal(line, TraceReadOptions(format: .azure)).contains("lacks a column"))
    }

    @Test func anEmptyFileIsSaidToBeEmpty() {
        #expect(refusal("") == "trace.jsonl: is empty; a trace has one request a line")
        #expect(refusal("\n \n\t\r\n").contains("is empty"))
        #expect(refusal("x\ny\n", TraceReadOptions(skipsBadLines: true)).contains("none of 2 lines is a request"))
    }

    @Test func aGiantLineStopsAtTheLimit() throws {
        let options = TraceReadOptions(lineByteLimit: 4096)
        let giant = String(repeating: "x", count: 100_000)
        let message = refusal(Self.good + giant, options)
        #expect(message == "trace.jsonl:2: the line is longer than 4096 bytes; a trace has one request a line")
        var skipping = options
        skipping.skipsBadLines = true
        let trace = try read(Self.good + giant + "\n" + mooncake("1", "1000", "[1, 2]"), skipping)
        #expect(trace.requests.count == 2)
        #expect(trace.skippedLineCount == 1)
        // A line as long as the limit allows is read.
        let long = "{\"x\":\"" + String(repeating: "x", count: 4000) + "\"," + Self.good.dropFirst()
        #expect(try read(String(long), options).requests.count == 1)
    }

    @Test func aGiantLineFromAPipeNeedsBoundedMemory() throws {
        // 256 MiB without a newline from a sparse file; the limit is 64 MiB.
        let folder = try TemporaryFolder()
        let path = try folder.file("giant.jsonl", [])
        let handle = try FileHandle(forWritingTo: URL(filePath: path))
        try handle.truncate(atOffset: 256 << 20)
        try handle.close()
        #expect(
            throws: OperatorError(
                "the line is longer than 67108864 bytes", at: path + ":1", remedy: "a trace has one request a line")
        ) {
            try Trace.read(from: path)
        }
    }

    @Test func tooManyReferencesAreRefused() {
        let options = TraceReadOptions(referenceLimit: 3)
        #expect(refusal(Self.good + mooncake("1", "1000", "[1, 2]"), options).contains("more than 3 block references"))
    }

    @Test func filesThatCannotBeReadAreNamed() throws {
        let folder = try TemporaryFolder()
        #expect(throws: OperatorError("is a directory", at: folder.path, remedy: "give the trace file in it")) {
            try Trace.read(from: folder.path)
        }
        let missing = folder.path + "/missing.jsonl"
        let error = #expect(throws: OperatorError.self) { try Trace.read(from: missing) }
        #expect(error?.description.hasPrefix("\(missing): cannot be opened (No such file") == true)
        #expect(throws: OperatorError.self) { try Trace.read(from: "") }
    }

    @Test func checkFindsEveryKindOfProblem() throws {
        let text =
            "{\"timestamp\":0,\"input_length\":200,\"output_length\":5,\"session\":4,\"turn\":3,\"hash_extents\":[[0,3]]}\n"
            + "{\"timestamp\":1,\"input_length\":200,\"output_length\":5,\"session\":4,\"turn\":3,\"hash_extents\":[[0,3]]}\n"
            + "{\"timestamp\":0,\"input_length\":200,\"output_length\":5,\"hash_extents\":[[0,3]]}\nrubbish\n"
            + "{\"timestamp\":2,\"input_length\":200,\"output_length\":5,\"hash_extents\":[[1,3]]}\nrubbish\n"
        let check = try TraceCheck.run(bytes: Array(text.utf8), name: "trace.jsonl")
        #expect(check.findings.map(\.kind) == [.turnOrder, .timeOrder, .syntax, .parentChange])
        #expect(check.findings.map(\.count) == [1, 1, 2, 1])
        #expect(check.findings.map(\.lines) == [[2], [3], [4, 6], [5]])
        #expect(check.trace?.requests.count == 2)
        #expect(check.problemCount == 5)
        #expect(throws: OperatorError.self) { try TraceCheck.run(bytes: Array("PAR1".utf8), name: "x") }
    }
}
