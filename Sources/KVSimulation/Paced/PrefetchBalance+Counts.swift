// What live agents counted of their predictions, as the balance that a record carries.

import KVReport
import KVTiering

extension PrefetchBalance {
    /// The balance of an agent's counts of blocks: `session_started`, `session_used`, `session_late`, … for each reason, and
    /// `missed`. Seconds are not in them.
    public init(counts: [String: Int], blockBytes: Int) {
        self.init()
        func bytes(_ name: String) -> Double { Double(counts[name] ?? 0) * Double(blockBytes) }
        var started = 0.0
        for reason in PrefetchReason.allCases {
            let (moved, used) = (bytes("\(reason.name)_started"), bytes("\(reason.name)_used"))
            started += moved
            bytesUsed += used
            bytesLate += bytes("\(reason.name)_late")
            byReason.append(PrefetchOfReason(reason: reason.name, bytesMoved: moved, bytesUsed: used))
        }
        // What still waits to be used at the end was not used.
        bytesNeverUsed = max(0, started - bytesUsed - bytesLate)
        precision = started > 0 ? bytesUsed / started : 0
        let wanted = bytesUsed + bytes("missed")
        recall = wanted > 0 ? bytesUsed / wanted : 0
        hasTimes = false
    }
}
