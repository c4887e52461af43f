// Which number the next connection gets.

import KVModel
import KVTiering

/// Numbers of connections. They go round: a worker names the connection that asked for a request in two bytes, and an agent that
/// is pinged every ten seconds has met 65,535 connections within eight days.
package struct EngineNumbers {
    /// The greatest that two bytes hold; 0 is nobody's.
    package static let last = EngineNumber(UInt16.max)

    private var previous: EngineNumber

    /// - Parameter previous: The number given out last; 0: none was.
    package init(after previous: EngineNumber = 0) { self.previous = previous }

    /// The next that is not taken. Fewer are taken than there are: each is an open file, or waits for a device to let go.
    package mutating func next(isTaken: (EngineNumber) -> Bool) -> EngineNumber {
        for _ in 0..<Self.last {
            previous = previous == Self.last ? 1 : previous + 1
            if !isTaken(previous) { return previous }
        }
        preconditionFailure("more connections than numbers")
    }
}
