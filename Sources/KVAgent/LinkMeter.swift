// How fast a path is, as seen: what the planner needs to weigh a load against computing. Not a benchmark: it learns from
// the bytes that move anyway.

import KVModel
import KVTiering

/// The rate of one path and what waits for it.
///
/// What was seen counts for less the longer it is ago: a path that was slow once, and is therefore not chosen, would
/// otherwise never be seen again.
package struct LinkMeter {
    /// Bytes a second while the path was busy last.
    package private(set) var bandwidth: Double
    /// Bytes that transfers begun or waiting have still to move.
    package private(set) var waitingBytes = 0
    private let first: LinkState
    private var seenAt = Instant.zero
    // The stretch of time under measurement: the path was busy from its start on.
    private var stretchStart = Instant.zero
    private var stretchBytes = 0
    private var isBusy = false
    /// Whether the stretch began with the path at rest.
    private var isFirst = false

    /// Stretches shorter than this say little; they grow until they are longer.
    private static let stretchMin = Duration(milliseconds: 1)
    /// How much of what was believed stays after a stretch.
    private static let memory = 0.8
    /// After so long without bytes what was seen and what was believed at first count alike.
    private static let ageOfDoubt = Duration(seconds: 30)

    /// A path believed to be as given until bytes have moved.
    package init(first: LinkState) {
        bandwidth = first.bandwidth
        self.first = first
    }

    /// A new transfer finds this.
    package func state(at now: Instant) -> LinkState {
        var rate = bandwidth
        if waitingBytes == 0 {
            let age = max(.zero, now - seenAt).seconds
            rate += (first.bandwidth - rate) * age / (age + Self.ageOfDoubt.seconds)
        }
        return LinkState(bandwidth: rate, delay: first.delay + Duration(seconds: Double(waitingBytes) / rate))
    }

    package mutating func added(_ bytes: Int, at now: Instant) {
        waitingBytes += bytes
        guard !isBusy else { return }
        isBusy = true
        isFirst = true
        stretchStart = now
        stretchBytes = 0
    }

    /// Bytes came through, or (`moved` false) will not come.
    package mutating func removed(_ bytes: Int, moved: Bool, at now: Instant) {
        waitingBytes -= bytes
        if moved { stretchBytes += bytes }
        let length = now - stretchStart
        if length >= Self.stretchMin || (waitingBytes == 0 && length > .zero) {
            if stretchBytes > 0 {
                seenAt = now
                // Planners add the first byte's latency themselves: a stretch of little but waiting says little of the rate.
                let busy = max(length - (isFirst ? first.delay : .zero), Duration(seconds: length.seconds / 4))
                let seen = Double(stretchBytes) / busy.seconds
                let share = length >= Self.stretchMin ? 1 - Self.memory : (1 - Self.memory) / 4
                bandwidth = max(1e6, bandwidth + share * (seen - bandwidth))
            }
            stretchStart = now
            stretchBytes = 0
            isFirst = false
        }
        if waitingBytes == 0 { isBusy = false }
    }
}
