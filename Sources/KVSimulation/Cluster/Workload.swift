// The requests a cluster is given: a trace at a stated load, with conversations found where the trace does not name
// them. Everything is in flat arrays that all systems of a comparison share.

import KVModel
import KVTrace

/// A trace made ready to be replayed on a cluster.
package struct Workload: Sendable {
    /// One request, in order of arrival (of the trace: `sessions` mode moves later turns).
    package struct Request: Sendable {
        package var arrival: Int64
        package var inputTokens: Int32
        package var outputTokens: Int32
        package var firstReference: Int
        package var blockCount: Int32
        /// The conversation, 0, 1, 2, …
        package var session: Int32
        /// Its place in the conversation, from 0.
        package var turn: Int32
        /// The next turn of the same conversation, −1 when there is none.
        package var next: Int32
        /// Between the end of the turn before and this one, in `sessions` mode.
        package var thinkTime: Int64
        package var stopReason: StopReason
        /// Which request of the trace it is, or is a copy of.
        package var source: Int32
    }

    package var requests: [Request]
    package var blocks: [BlockNumber]
    /// Block numbers are below this: as many as the trace has, and those of copies. Of a thinned trace some stand in no path.
    package var uniqueBlockCount: Int
    /// How many different blocks the paths hold.
    package var distinctBlockCount: Int
    package var blockTokens: Int
    package var sessionCount: Int
    /// Whether the trace has no prefix identity, so that every prompt is taken as unique.
    package var promptsAreUnique: Bool
    /// Conversations alive at the same time, on average over the span: from a first turn to a mean gap after the last.
    package var liveSessions: Double
    /// Mean bytes-free size of a conversation: distinct blocks it touches.
    package var blocksPerSession: Double

    package var inputTokens: Int { requests.reduce(0) { $0 + Int($1.inputTokens) } }
    package var outputTokens: Int { requests.reduce(0) { $0 + Int($1.outputTokens) } }
    /// Nanoseconds from the first arrival to the last.
    package var span: Int64 { (requests.last?.arrival ?? 0) - (requests.first?.arrival ?? 0) }

    /// The path of a request.
    @inline(__always)
    package func withPath<Result>(of request: Int, _ body: (Span<BlockNumber>) -> Result) -> Result {
        let start = requests[request].firstReference
        return body(blocks.span.extracting(start..<start + Int(requests[request].blockCount)))
    }
}

extension Workload {
    /// The trace at `load` times its sessions. Thinning keeps whole conversations; multiplying adds copies of whole
    /// conversations with fresh content, each moved by a share of the mean gap between conversations, while blocks that
    /// several conversations share (system prompts, documents) stay shared.
    package init(_ trace: Trace, load: Double = 1, thinkTime: Double, seed: UInt64) {
        var sessions = trace.requests.map(\.session)
        var names = Self.sessionNames(&sessions, trace)
        blockTokens = trace.blockTokens
        promptsAreUnique = !trace.namesPrefixes
        if promptsAreUnique {
            // No identity: nothing is known to be shared, so every request is a conversation of its own.
            for index in sessions.indices { sessions[index] = Int32(index) }
            names = sessions.count
        }
        requests = []
        blocks = []
        uniqueBlockCount = trace.uniqueBlockCount
        distinctBlockCount = 0
        sessionCount = 0
        liveSessions = 0
        blocksPerSession = 0
        let shared = load > 1 ? Self.sharedBlocks(trace, sessions) : []
        var random = RandomSource(seed: seed ^ 0x5E55_10A5)
        var keys: [Double] = []
        keys.reserveCapacity(names)
        for _ in 0..<names { keys.append(random.uniform()) }
        let copies = Int(load.rounded(.up))
        let gap = Self.span(trace) / Int64(max(1, names))
        blocks.reserveCapacity(Int(Double(trace.blocks.count) * load))
        for copy in 0..<copies {
            // The last copy is partial: of load 2.5, the third copy holds half of the conversations. However small the
            // load, one conversation stays.
            let share = min(1, load - Double(copy))
            let least = copy == 0 ? keys.min() ?? 0 : 0
            append(
                trace, sessions: sessions, copy: copy, shared: shared,
                shift: Int64(Double(gap) * Double(copy) / Double(copies)), sessionOffset: copy * names
            ) { keys[Int($0)] < share || keys[Int($0)] == least }
        }
        if copies > 1 { requests.sort { $0.arrival != $1.arrival ? $0.arrival < $1.arrival : $0.session < $1.session } }
        linkTurns(trace: trace, thinkTime: thinkTime, random: &random)
    }

    private mutating func append(
        _ trace: Trace, sessions: [Int32], copy: Int, shared: [Bool], shift: Int64, sessionOffset: Int,
        keep: (Int32) -> Bool
    ) {
        var renamed: [BlockNumber] = []
        if copy > 0 { renamed = Array(repeating: .max, count: trace.uniqueBlockCount) }
        var next = BlockNumber(uniqueBlockCount)
        for (index, request) in trace.requests.enumerated() where keep(sessions[index]) {
            let start = blocks.count
            if promptsAreUnique {
                // One block per block of tokens, each new.
                let count = Int(request.inputTokens) / blockTokens
                for _ in 0..<count {
                    blocks.append(next)
                    next += 1
                }
            } else if copy == 0 {
                blocks.append(contentsOf: trace.path(of: request))
            } else {
                for block in trace.path(of: request) {
                    if shared[Int(block)] {
                        blocks.append(block)
                        continue
                    }
                    if renamed[Int(block)] == .max {
                        renamed[Int(block)] = next
                        next += 1
                    }
                    blocks.append(renamed[Int(block)])
                }
            }
            requests.append(
                Request(
                    arrival: request.arrival.nanoseconds + shift, inputTokens: max(1, request.inputTokens),
                    outputTokens: max(1, request.outputTokens), firstReference: start,
                    blockCount: Int32(blocks.count - start), session: sessions[index] + Int32(sessionOffset), turn: 0,
                    next: -1, thinkTime: request.thinkTime?.nanoseconds ?? -1, stopReason: request.stopReason,
                    source: Int32(index)))
        }
        uniqueBlockCount = Int(next)
    }

    /// Numbers turns, links each to the next, draws think times the trace lacks, and measures the conversations.
    private mutating func linkTurns(trace: Trace, thinkTime: Double, random: inout RandomSource) {
        let highest = requests.reduce(0) { max($0, Int($1.session) + 1) }
        var last = Array(repeating: Int32(-1), count: highest)
        var first = Array(repeating: Int64(-1), count: highest)
        var distinct = 0
        var seenIn = Array(repeating: Int32(-1), count: uniqueBlockCount)
        var gaps = 0.0
        var gapCount = 0
        for index in requests.indices {
            let session = Int(requests[index].session)
            if last[session] >= 0 {
                let before = Int(last[session])
                requests[index].turn = requests[before].turn + 1
                requests[before].next = Int32(index)
                gaps += Double(requests[index].arrival - requests[before].arrival)
                gapCount += 1
            } else {
                sessionCount += 1
                first[session] = requests[index].arrival
            }
            if requests[index].thinkTime < 0 {
                requests[index].thinkTime = Int64(random.exponential(mean: thinkTime) * 1e9)
            }
            last[session] = Int32(index)
            for block in blocks[requests[index].firstReference...].prefix(Int(requests[index].blockCount))
            where seenIn[Int(block)] != Int32(session) {
                if seenIn[Int(block)] < 0 { distinctBlockCount += 1 }
                seenIn[Int(block)] = Int32(session)
                distinct += 1
            }
        }
        let meanGap = gapCount > 0 ? gaps / Double(gapCount) : thinkTime * 1e9
        var alive = 0.0
        for session in 0..<highest where last[session] >= 0 {
            alive += Double(requests[Int(last[session])].arrival - first[session]) + meanGap
        }
        // Of a trace shorter than a pause no more are alive at once than there are.
        liveSessions = span > 0 ? min(alive / Double(span), Double(sessionCount)) : Double(sessionCount)
        blocksPerSession = sessionCount > 0 ? Double(distinct) / Double(sessionCount) : 0
    }

    /// Names the conversations of a trace 0, 1, 2, …, and finds those that it does not name: a request goes on with
    /// the conversation that last used its deepest known block if at least half of its blocks are known.
    private static func sessionNames(_ sessions: inout [Int32], _ trace: Trace) -> Int {
        var names: [Int32: Int32] = [:]
        var owner = Array(repeating: Int32(-1), count: trace.uniqueBlockCount)
        var count: Int32 = 0
        for (index, request) in trace.requests.enumerated() {
            let path = trace.path(of: request)
            if sessions[index] >= 0 {
                if let name = names[sessions[index]] {
                    sessions[index] = name
                } else {
                    names[sessions[index]] = count
                    sessions[index] = count
                    count += 1
                }
                continue
            }
            let known = path.prefix { owner[Int($0)] >= 0 }
            if let deepest = known.last, 2 * known.count >= path.count, known.count > 1 || path.count == 1 {
                sessions[index] = owner[Int(deepest)]
            } else {
                sessions[index] = count
                count += 1
            }
            for block in path { owner[Int(block)] = sessions[index] }
        }
        return Int(count)
    }

    /// Blocks that more than one conversation uses.
    private static func sharedBlocks(_ trace: Trace, _ sessions: [Int32]) -> [Bool] {
        var user = Array(repeating: Int32(-1), count: trace.uniqueBlockCount)
        var shared = Array(repeating: false, count: trace.uniqueBlockCount)
        for (index, request) in trace.requests.enumerated() {
            for block in trace.path(of: request) {
                if user[Int(block)] < 0 {
                    user[Int(block)] = sessions[index]
                } else if user[Int(block)] != sessions[index] {
                    shared[Int(block)] = true
                }
            }
        }
        return shared
    }

    private static func span(_ trace: Trace) -> Int64 {
        guard let first = trace.requests.first, let last = trace.requests.last else { return 0 }
        return last.arrival.nanoseconds - first.arrival.nanoseconds
    }
}
