// Compressed traces: told apart by their first bytes, streamed through a child process, never trusted.

import Foundation
import Glibc
import KVModel
import KVTrace
import Testing

@Suite struct TraceStreamTests {
    /// A trace whose text is some megabytes, so that pipes fill up in both directions.
    static let large = randomTrace(seed: 77, requests: 30_000)

    /// The trace as a file of that suffix.
    private func stored(_ trace: Trace, _ suffix: String) throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let path = folder.path + "/trace.jsonl" + suffix
        try trace.write(to: path)
        return try bytes(of: path)
    }

    @Test(arguments: ["", ".gz", ".zst"])
    func everyCompressionGivesTheSameTrace(_ suffix: String) throws {
        if suffix == ".zst", !hasCommand("zstd") { return print("zstd is not installed: not tested") }
        let folder = try TemporaryFolder()
        let path = folder.path + "/trace.jsonl" + suffix
        try Self.large.write(to: path)
        var shown = 0
        let trace = try Trace.read(from: path) { progress in
            shown = progress.bytesRead
            #expect(progress.bytesTotal != nil)
        }
        #expect(shown == (try bytes(of: path).count))
        #expect(trace.contentDigest == (try read(text(Self.large, .holdfast)).contentDigest))
        // However it is stored it is the same, and is found by what it is called without that.
        #expect(try trace.sha256 == read(text(Self.large, .holdfast)).sha256)
        #expect(try Trace.read(from: folder.path + "/trace.jsonl").sha256 == trace.sha256)
        #expect(trace.requests.count == Self.large.requests.count)
        #expect(!FileManager.default.fileExists(atPath: path + ".partial"))
    }

    @Test func aFileThatIsThereComesBeforeTheSameNameCompressed() throws {
        let folder = try TemporaryFolder()
        func line(_ id: Int) -> String {
            #"{"timestamp": 0, "input_length": 3, "output_length": 2, "hash_ids": [\#(id)]}"# + "\n"
        }
        try Data(line(1).utf8).write(to: URL(filePath: folder.path + "/t.jsonl.gz"))
        let path = folder.path + "/t.jsonl"
        #expect(try Trace.read(from: path).sha256 == read(line(1)).sha256)
        try Data(line(2).utf8).write(to: URL(filePath: path))
        #expect(try Trace.read(from: path).sha256 == read(line(2)).sha256)
        let missing = folder.path + "/missing.jsonl"
        let error = #expect(throws: OperatorError.self) { try Trace.read(from: missing) }
        #expect(error.map { "\($0)" }?.contains("missing.jsonl: cannot be opened (No such file or directory)") == true)
    }

    @Test func aPipeIsWrittenAsItIsAndALinkLeadsToItsFile() throws {
        let folder = try TemporaryFolder()
        let (pipe, link, file) = (folder.path + "/pipe", folder.path + "/link", folder.path + "/file")
        #expect(unsafe mkfifo(pipe, 0o600) == 0)
        let reader = unsafe open(pipe, O_RDWR | O_NONBLOCK)
        defer { _ = close(reader) }
        let small = try read(#"{"timestamp": 0, "input_length": 3, "output_length": 2, "hash_ids": [4]}"#)
        try small.write(to: pipe)
        var status = stat()
        #expect(unsafe lstat(pipe, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
        var bytes = [UInt8](repeating: 0, count: 4096)
        #expect(unsafe bytes.withUnsafeMutableBytes { unsafe Glibc.read(reader, $0.baseAddress!, $0.count) } > 0)

        #expect(FileManager.default.createFile(atPath: file, contents: nil))
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: file)
        try small.write(to: link)
        #expect(unsafe lstat(link, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        #expect(try Trace.read(from: file).contentDigest == small.contentDigest)
    }

    @Test(arguments: [".gz", ".zst"])
    func aTruncatedStreamIsOneError(_ suffix: String) throws {
        if suffix == ".zst", !hasCommand("zstd") { return print("zstd is not installed: not tested") }
        let whole = try stored(Self.large, suffix)
        for length in [4, 10, 100, whole.count / 2, whole.count - 1] {
            let message = refusal(Array(whole.prefix(length)))
            #expect(message.contains("truncated or damaged"), "\(length) of \(whole.count): \(message)")
        }
    }

    @Test(arguments: [".gz", ".zst"])
    func aDamagedStreamIsOneError(_ suffix: String) throws {
        if suffix == ".zst", !hasCommand("zstd") { return print("zstd is not installed: not tested") }
        let whole = try stored(Self.large, suffix)
        for offset in [whole.count / 3, whole.count / 2, whole.count - 5] {
            var damaged = whole
            damaged[offset] ^= 0x55
            // Though what came of it before may have been no line of a trace: that is the damage's fault.
            let message = refusal(damaged)
            #expect(message.contains("truncated or damaged"), "\(offset) of \(whole.count): \(message)")
            // Nor is it a finding among others.
            let error = #expect(throws: OperatorError.self) { try TraceCheck.run(bytes: damaged, name: "trace.jsonl") }
            #expect(error?.what.contains("truncated or damaged") == true, "\(offset) of \(whole.count)")
        }
        let garbage = Array(whole.prefix(4)) + [UInt8](repeating: 0xAB, count: 5000)
        #expect(refusal(garbage).contains("truncated or damaged"))
    }

    @Test func anEmptyCompressedFileIsEmpty() throws {
        // gzip of nothing, as `gzip -n < /dev/null` writes it.
        let nothing: [UInt8] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        #expect(refusal(nothing).contains("is empty"))
        #expect(refusal([0x1F, 0x8B]).contains("truncated or damaged"))
        #expect(refusal([0x1F]).contains("no known trace format"))
    }

    @Test func stoppingEarlyLeavesNoChildBehind() throws {
        // The first line is bad, and behind it is more than anybody reads to see whether the stream is whole.
        var broken = Self.large
        broken.requests[5].inputTokens = 0
        broken.requests[5].blockCount = max(1, broken.requests[5].blockCount)
        let folder = try TemporaryFolder()
        let path = folder.path + "/newlines"
        try Data(repeating: UInt8(ascii: "\n"), count: 1 << 20).write(to: URL(fileURLWithPath: path))
        let gzip = Process()
        gzip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        gzip.arguments = ["gzip", path]
        try gzip.run()
        gzip.waitUntilExit()
        // Compressed streams one behind the other are one.
        let newlines = try bytes(of: path + ".gz")
        let whole = (0..<100).reduce(into: try stored(broken, ".gz")) { whole, _ in whole += newlines }
        for _ in 0..<10 { #expect(refusal(whole).hasPrefix("trace.jsonl:7: ")) }
        // Other tests run at the same time, and theirs may just have ended.
        #expect(childCount() < 10)
    }

    /// Children of this process that have ended and were never waited for.
    private func childCount() -> Int {
        let own = ProcessInfo.processInfo.processIdentifier
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.count { entry in
            guard Int(entry) != nil,
                let status = try? String(contentsOfFile: "/proc/\(entry)/stat", encoding: .utf8),
                let fields = status.split(separator: ")").last?.split(separator: " ")
            else { return false }
            return fields[0] == "Z" && fields[1] == "\(own)"
        }
    }

    @Test func aMissingCommandIsNamed() {
        let error = #expect(throws: OperatorError.self) {
            try startFilter(["holdfast-no-such-command", "-dc"])
        }
        #expect(error?.description.contains("`holdfast-no-such-command`") == true)
        #expect(error?.description.contains("install holdfast-no-such-command") == true)
    }

    private func startFilter(_ arguments: [String]) throws { _ = try FilterProcess.start(arguments, place: "x.gz") }

    @Test func writingNeedsAPlace() throws {
        #expect(throws: OperatorError.self) { try Self.large.write(to: "/holdfast-no-such-folder/trace.jsonl.gz") }
    }
}
