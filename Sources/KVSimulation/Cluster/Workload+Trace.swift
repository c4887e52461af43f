// A workload as a trace again, for what is counted without time: at another load than the trace's own, a curve of sizes
// must be that of the requests the cluster was given.

import KVModel
import KVTrace

extension Workload {
    /// The requests as a trace, in their order, blocks numbered by first appearance. `trace` is the one that the workload was
    /// made from: what it says of conversations and of turns that ended is kept, what it does not say stays unsaid.
    package func asTrace(_ trace: Trace) -> Trace {
        var made = trace
        made.requests = []
        made.blocks = []
        made.requests.reserveCapacity(requests.count)
        made.blocks.reserveCapacity(blocks.count)
        var numbers = Array(repeating: BlockNumber.max, count: uniqueBlockCount)
        var next: BlockNumber = 0
        for (index, request) in requests.enumerated() {
            var copy = trace.requests[Int(request.source)]
            copy.arrival = Instant(nanoseconds: request.arrival)
            copy.inputTokens = request.inputTokens
            copy.outputTokens = request.outputTokens
            copy.firstReference = made.blocks.count
            copy.blockCount = request.blockCount
            if copy.session >= 0 { copy.session = request.session }
            withPath(of: index) { path in
                for place in path.indices {
                    let block = Int(path[place])
                    if numbers[block] == .max {
                        numbers[block] = next
                        next += 1
                    }
                    made.blocks.append(numbers[block])
                }
            }
            made.requests.append(copy)
        }
        made.uniqueBlockCount = Int(next)
        return made
    }
}
