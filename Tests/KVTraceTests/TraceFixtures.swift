// What the trace tests share: small files as text, the committed traces, and real traces where there are any.

import Foundation
import KVModel
import KVTrace
import Testing

/// Reads a trace from text, as if it were the file `trace.jsonl`.
func read(_ text: String, _ options: TraceReadOptions = TraceReadOptions()) throws(OperatorError) -> Trace {
    try Trace.read(bytes: Array(text.utf8), name: "trace.jsonl", options: options)
}

/// The error that reading the text gives; the test fails when there is none.
func refusal(
    _ text: String, _ options: TraceReadOptions = TraceReadOptions(), sourceLocation: SourceLocation = #_sourceLocation
) -> String {
    refusal(Array(text.utf8), options, sourceLocation: sourceLocation)
}

/// The same for bytes.
func refusal(
    _ bytes: [UInt8], _ options: TraceReadOptions = TraceReadOptions(),
    sourceLocation: SourceLocation = #_sourceLocation
) -> String {
    do throws(OperatorError) {
        _ = try Trace.read(bytes: bytes, name: "trace.jsonl", options: options)
    } catch {
        return error.description
    }
    Issue.record("the trace was read", sourceLocation: sourceLocation)
    return ""
}

/// The folder of the committed traces.
let committedTraces = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Traces").path

/// The folder of real traces, which are not part of the repository.
let realTraces = ProcessInfo.processInfo.environment["HOLDFAST_TRACES"]

/// A folder for one test, removed when the test is over.
final class TemporaryFolder {
    let path = FileManager.default.temporaryDirectory.appending(path: "holdfast-trace-\(UUID().uuidString)").path

    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = path + "/" + name
        try Data(bytes).write(to: URL(filePath: file))
        return file
    }
}

/// The bytes of a file.
func bytes(of path: String) throws -> [UInt8] { try Array(Data(contentsOf: URL(filePath: path))) }

/// Whether the command is on the search path.
func hasCommand(_ name: String) -> Bool {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
        FileManager.default.isExecutableFile(atPath: "\($0)/\(name)")
    }
}

/// A Mooncake line.
func mooncake(_ timestamp: String, _ input: String, _ ids: String, output: String = "10") -> String {
    "{\"timestamp\": \(timestamp), \"input_length\": \(input), \"output_length\": \(output), \"hash_ids\": \(ids)}\n"
}

/// A random trace whose ids keep their promise: a tree grown by random walks.
func randomTrace(seed: UInt64, requests: Int, blockTokens: Int = 16) -> Trace {
    var random = RandomSource(seed: seed)
    var children: [[BlockNumber: BlockNumber]] = []
    var roots: [BlockNumber: BlockNumber] = [:]
    var trace = Trace(
        name: "random", format: .holdfast, sha256: "", blockTokens: blockTokens, requests: [], blocks: [],
        uniqueBlockCount: 0)
    var time: Int64 = 0
    for _ in 0..<requests {
        time += Int64(random.below(3_000_000_000))
        let first = trace.blocks.count
        var node: BlockNumber?
        for _ in 0..<random.below(9) {
            let choice = BlockNumber(random.below(3))
            let known = node.map { children[Int($0)][choice] } ?? roots[choice]
            let next = known ?? BlockNumber(children.count)
            if known == nil {
                children.append([:])
                if let node { children[Int(node)][choice] = next } else { roots[choice] = next }
            }
            trace.blocks.append(next)
            node = next
        }
        let count = trace.blocks.count - first
        let session = Int32(random.below(5)) - 1
        trace.requests.append(
            TraceRequest(
                arrival: Instant(nanoseconds: time),
                inputTokens: Int32(count * blockTokens + random.below(blockTokens)),
                outputTokens: Int32(random.below(900)), firstReference: first, blockCount: Int32(count),
                session: session, turn: session < 0 ? -1 : Int32(random.below(9)),
                stopReason: StopReason(rawValue: UInt8(random.below(3)))!,
                serviceTime: random.below(2) == 0 ? nil : Duration(nanoseconds: Int64(random.below(1 << 40))),
                thinkTime: random.below(2) == 0 ? nil : Duration(nanoseconds: Int64(random.below(1 << 40)))))
    }
    trace.uniqueBlockCount = children.count
    return trace
}
