// Longer traces from short ones, for measuring speed and endurance.

import Crypto
import KVModel

extension Trace {
    /// The trace `times` times over, one after another: each copy with blocks and conversations of its own, and its
    /// clock where the copy before it ended. Nothing is shared between copies, so hit ratios stay what they were
    /// while the index and the history grow.
    public func repeated(times: Int) throws(OperatorError) -> Trace {
        if times < 1 { throw OperatorError("a trace cannot be repeated \(times) times") }
        let (blockTotal, overflow) = uniqueBlockCount.multipliedReportingOverflow(by: times)
        if overflow || blockTotal >= Int(BlockNumber.max) {
            throw OperatorError("\(times) copies have more than \(BlockNumber.max) different blocks")
        }
        let sessionCount = (requests.map { Int($0.session) }.max() ?? -1) + 1
        if sessionCount.multipliedReportingOverflow(by: times).partialValue > Int(Int32.max) {
            throw OperatorError("\(times) copies have more than \(Int32.max) conversations")
        }
        // One mean gap lies between the copies, as between any two requests.
        let span = (requests.last?.arrival ?? .zero) - (requests.first?.arrival ?? .zero)
        let (gap, period) = (span.nanoseconds / Int64(max(requests.count, 1)), span.nanoseconds)
        if (period + gap).multipliedReportingOverflow(by: Int64(times)).overflow {
            throw OperatorError("\(times) copies take more than 292 years")
        }
        var result = self
        result.requests.reserveCapacity(requests.count * times)
        result.blocks.reserveCapacity(blocks.count * times)
        for copy in 1..<max(times, 1) {
            let shift = BlockNumber(copy * uniqueBlockCount)
            result.blocks.append(contentsOf: blocks.lazy.map { $0 + shift })
            for request in requests {
                var moved = request
                moved.arrival = Instant(
                    nanoseconds: request.arrival.nanoseconds + (period + gap) * Int64(copy))
                moved.firstReference += copy * blocks.count
                if request.session >= 0 { moved.session += Int32(copy * sessionCount) }
                result.requests.append(moved)
            }
        }
        result.uniqueBlockCount = blockTotal
        result.name = times == 1 ? name : "\(name)×\(times)"
        if times > 1 {
            let digest = SHA256.hash(data: Array("\(sha256) × \(times)".utf8))
            result.sha256 = digest.map { String(hexadecimal($0).dropFirst(2)).lowercased() }.joined()
        }
        return result
    }
}
