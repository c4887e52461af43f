// The traces that benchmarks run on: a real one when a folder is given, a generated one otherwise.

import Foundation
import KVModel
import KVTrace

extension BenchmarkSetting {
    /// The path of a real trace, when it is there.
    func realTrace(_ name: String) -> String? {
        guard let tracesFolder else { return nil }
        let path = "\(tracesFolder)/\(name).jsonl.gz"
        return FileManager.default.fileExists(atPath: path) ? path : nil
    }

    /// A trace for cache replays: `preferred` if it is there, else a generated one.
    func trace(_ preferred: String) throws -> Trace {
        if let path = realTrace(preferred) { return try Trace.read(from: path) }
        return generatedTrace(requestCount: 20_000)
    }
}

/// Conversations that grow turn by turn and are taken up again, about 200 blocks a prompt. Always the same one.
func generatedTrace(requestCount: Int) -> Trace {
    var source = RandomSource(seed: 1)
    var conversations: [[BlockNumber]] = []
    var requests: [TraceRequest] = []
    var blocks: [BlockNumber] = []
    var next: BlockNumber = 0
    for index in 0..<requestCount {
        var path: [BlockNumber] = []
        var place = conversations.count
        if !conversations.isEmpty, source.below(12) != 0 {
            place = conversations.count - 1 - source.below(min(conversations.count, 200))
            path = conversations[place]
        }
        for _ in 0..<(path.isEmpty ? 60 : 1 + source.below(30)) {
            path.append(next)
            next += 1
        }
        if place == conversations.count { conversations.append(path) } else { conversations[place] = path }
        requests.append(
            TraceRequest(
                arrival: Instant(nanoseconds: Int64(index) * 100_000_000), inputTokens: Int32(path.count * 64),
                outputTokens: 200, firstReference: blocks.count, blockCount: Int32(path.count)))
        blocks += path
    }
    return Trace(
        name: "generated", format: .holdfast, sha256: "", blockTokens: 64, requests: requests, blocks: blocks,
        uniqueBlockCount: Int(next))
}
