// Collects the requests of synthetic sessions and puts them in order of arrival.

import KVModel

/// The content of one conversation so far: which text stands where, as block ids that chain over everything before.
struct ContentPath {
    let blockTokens: Int
    /// One id for each full block.
    private(set) var ids: [UInt64] = []
    private(set) var tokens = 0
    private var running: UInt64 = 0x9E37_79B9_7F4A_7C15

    init(blockTokens: Int) { self.blockTokens = blockTokens }

    /// Appends `count` tokens of the text called `text`. Equal texts at equal places behind equal content give equal
    /// ids; a text that is cut short equals the front of the whole one.
    mutating func append(text: UInt64, tokens count: Int) {
        var offset = 0
        while offset < count {
            let piece = min(blockTokens - tokens % blockTokens, count - offset)
            running = mixBits(running ^ mixBits(text &+ UInt64(offset) &* 0xD6E8_FEB8_6659_FD93))
            // A piece that ends with its block has a length that follows from its place.
            if (tokens + piece) % blockTokens != 0 { running = mixBits(running &+ UInt64(piece)) }
            tokens += piece
            offset += piece
            if tokens % blockTokens == 0 { ids.append(running) }
        }
    }
}

/// A request before all arrivals are known.
private struct RecordedRequest {
    var time: Double
    var input: Int
    var output: Int
    var path: Int
    var blockCount: Int
    var conversation: Int
    var turn: Int
    var stop: StopReason
    var service: Double
    var think: Double?
}

/// Collects requests.
struct SyntheticRecorder {
    let blockTokens: Int
    private var paths: [[UInt64]] = []
    private var requests: [RecordedRequest] = []
    private var conversationCount = 0

    init(blockTokens: Int) { self.blockTokens = blockTokens }

    /// A number for a new conversation.
    mutating func newConversation() -> Int {
        conversationCount += 1
        return conversationCount - 1
    }

    /// Where the ids of a content path will be kept.
    mutating func newPath() -> Int {
        paths.append([])
        return paths.count - 1
    }

    /// Records a request whose prompt is all of `content`. Earlier requests of the same `path` have prompts that are
    /// fronts of this one, so only the longest is kept.
    mutating func record(
        at time: Double, content: ContentPath, path: Int, output: Int, conversation: Int, turn: Int,
        stop: StopReason, service: Double, think: Double?
    ) {
        if time < 0 { return }
        paths[path] = content.ids
        requests.append(
            RecordedRequest(
                time: time, input: content.tokens, output: output, path: path, blockCount: content.ids.count,
                conversation: conversation, turn: turn, stop: stop, service: service, think: think))
    }

    /// The trace of everything recorded, in order of arrival. Times are whole milliseconds, as recordings have them.
    func trace(limit: Int?) -> Trace {
        let order = requests.indices.sorted { left, right in
            (requests[left].time, left) < (requests[right].time, right)
        }
        var interner = PathInterner()
        var blocks: [BlockNumber] = []
        var sessions: [Int: Int32] = [:]
        let result = order.prefix(limit ?? order.count).map { index in
            let recorded = requests[index]
            let session = sessions[recorded.conversation] ?? Int32(sessions.count)
            sessions[recorded.conversation] = session
            let firstReference = blocks.count
            do throws(LineProblem) {
                try interner.append(Array(paths[recorded.path].prefix(recorded.blockCount)), to: &blocks)
            } catch {
                preconditionFailure("two different texts have one id: \(error.what)")
            }
            return TraceRequest(
                arrival: Instant(nanoseconds: milliseconds(recorded.time).nanoseconds),
                inputTokens: Int32(recorded.input), outputTokens: Int32(recorded.output),
                firstReference: firstReference, blockCount: Int32(recorded.blockCount), session: session,
                turn: Int32(recorded.turn), stopReason: recorded.stop, serviceTime: milliseconds(recorded.service),
                thinkTime: recorded.think.map(milliseconds))
        }
        return Trace(
            name: "synthetic", format: .holdfast, sha256: "", blockTokens: blockTokens, requests: result,
            blocks: blocks, uniqueBlockCount: interner.count)
    }

    private func milliseconds(_ seconds: Double) -> Duration {
        Duration(milliseconds: Int64((seconds * 1000).rounded()))
    }
}
